from __future__ import annotations

from typing import Any

import pytest
import torch

import mpo_torchrl.functional as F
from tests.reference.cases import Case, cases

EVERY_CASE = cases("rlax_vmpo")
WEIGHTS = ("policy", "temperature", "kl", "alpha")


@EVERY_CASE
def test_every_term_equals_rlax(case: Case) -> None:
    def trained(key: str) -> torch.Tensor:
        return case[f"in/{key}"].clone().requires_grad_()

    log_prob, temperature = trained("sample_log_probs"), trained("temperature")
    given: dict[str, Any] = {"top_k_fraction": case.config("top_k_fraction")}
    for name in ("restarting", "importance"):
        if case.config(f"has_{name}_weights"):
            given[f"{name}_weight"] = case[f"in/{name}_weights"]
    advantage = case["in/advantages"]

    weight = F.vmpo_weights(advantage, temperature, **given)
    loss_temperature = F.vmpo_temperature_loss(
        advantage, temperature, case.config("epsilon_temperature"), **given
    )
    case.assert_close(weight, "out/normalized_weights")
    case.assert_close(loss_temperature, "out/temperature_loss")

    names = [f"constraint{i}" for i in range(case.config("num_kl_constraints"))]
    kl = {name: trained(f"{name}_kl") for name in names}
    alpha = {name: trained(f"{name}_alpha") for name in names}
    terms = {
        "policy": -weight * log_prob * weight.numel(),
        "temperature": loss_temperature,
        "kl": sum(F.kl_penalty(kl[n], alpha[n]) for n in names),
        "alpha": sum(F.alpha_loss(kl[n], alpha[n], case.config(f"{n}_epsilon")) for n in names),
    }
    total = sum(terms[name] * case.config(f"{name}_loss_weight") for name in WEIGHTS)
    case.assert_close(total, "out/loss")
    case.assert_close(terms["policy"], "out/policy_loss")
    total.mean().backward()
    case.assert_close(log_prob.grad, "grad/sample_log_probs")
    case.assert_close(temperature.grad, "grad/temperature")
    for name in names:
        case.assert_close(kl[name].grad, f"grad/{name}_kl")
        case.assert_close(alpha[name].grad, f"grad/{name}_alpha")


if __name__ == "__main__":
    pytest.main([__file__])
