from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import mpo_torchrl.functional as F
from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.m_step import Fit
from tests.reference.cases import Case, cases
from tests.reference.given import make_batch, make_loss

EVERY_CASE = cases("rlax_mpo")
WEIGHTS = ("policy", "temperature", "kl", "alpha")


def constraints(case: Case) -> list[str]:
    return [f"constraint{i}" for i in range(case.config("num_kl_constraints"))]


def grad_of(case: Case, key: str) -> Tensor:
    return case[f"in/{key}"].clone().requires_grad_()


@EVERY_CASE
def test_every_term_equals_rlax(case: Case) -> None:
    q_value = case["in/sample_q_values"].movedim(0, -1)
    log_prob = grad_of(case, "sample_log_probs")
    temperature = grad_of(case, "temperature")
    weight = F.nonparametric_weights(q_value, temperature)
    case.assert_close(weight.movedim(-1, 0), "out/normalized_weights")

    terms = {
        "policy": -(weight * log_prob.movedim(0, -1)).sum(-1),
        "temperature": F.temperature_loss(q_value, temperature, case.config("epsilon_temperature")),
    }
    kl, alpha = {}, {}
    for name in constraints(case):
        kl[name], alpha[name] = grad_of(case, f"{name}_kl"), grad_of(case, f"{name}_alpha")
    terms["kl"] = sum(F.kl_penalty(kl[n], alpha[n]) for n in kl)
    terms["alpha"] = sum(F.alpha_loss(kl[n], alpha[n], case.config(f"{n}_epsilon")) for n in kl)
    total = sum(terms[n] * case.config(f"{n}_loss_weight") for n in WEIGHTS)
    total.mean().backward()

    case.assert_close(total, "out/loss")
    for name in WEIGHTS:
        case.assert_close(terms[name], f"out/{name}_loss")
    case.assert_close(log_prob.grad, "grad/sample_log_probs")
    case.assert_close(temperature.grad, "grad/temperature")
    for name in kl:
        case.assert_close(kl[name].grad, f"grad/{name}_kl")
        case.assert_close(alpha[name].grad, f"grad/{name}_alpha")


class GivenFit(nn.Module):
    """An M-step that is told its log-probabilities and KLs, as rlax is by its caller."""

    readings = ()

    def __init__(self, log_prob: Tensor, kl: dict[str, Tensor], epsilon: dict[str, float]) -> None:
        super().__init__()
        self.log_prob, self.kl = log_prob, kl
        batch_dims = log_prob.ndim - 1
        self.multipliers = nn.ModuleDict(
            {
                name: KLMultiplier(epsilon[name], 1.0, shape=value.shape[batch_dims:])
                for name, value in kl.items()
            }
        )

    def forward(self, improved, policy, reference) -> Fit:
        return Fit(-(improved["weight"] * self.log_prob).sum(-1), self.kl)


@EVERY_CASE
def test_mpo_loss_given_a_case_under_its_keys_equals_rlax(case: Case) -> None:
    log_prob = grad_of(case, "sample_log_probs")
    names = constraints(case)
    kl = {name: grad_of(case, f"{name}_kl") for name in names}
    epsilon = {name: case.config(f"{name}_epsilon") for name in names}
    m_step = GivenFit(log_prob.movedim(0, -1), kl, epsilon)
    q_value = case["in/sample_q_values"].movedim(0, -1)
    batch_shape = q_value.shape[:-1]
    loc = torch.zeros(*batch_shape, 1, dtype=torch.float64)

    loss, _ = make_loss(
        loc,
        torch.ones_like(loc),
        m_step=m_step,
        epsilon=case.config("epsilon_temperature"),
        epsilon_penalty=None,
        reduction="none",
        scalar_output_mode="exclude",
    )
    loss.double()
    duals = {"temperature": (loss.temperature, case["in/temperature"])}
    for name in names:
        duals[f"{name}_alpha"] = (m_step.multipliers[name], case[f"in/{name}_alpha"])
    for dual, value in duals.values():
        dual.assign(value)
    action = torch.zeros(*q_value.shape, 1, dtype=torch.float64)
    out = loss(make_batch(loc, action=action, state_action_value=q_value))

    case.assert_close(out["loss_temperature"], "out/temperature_loss")
    case.assert_close(out["loss_alpha"], "out/alpha_loss")
    actor = case["out/policy_loss"] + case["out/kl_loss"]
    torch.testing.assert_close(out["loss_actor"], actor, rtol=1e-9, atol=1e-12)

    # The weights of the terms are the caller's, as they are in any sum of losses.
    factor = {n: case.config(f"{n}_loss_weight") for n in WEIGHTS}
    total = out["loss_temperature"] * factor["temperature"] + out["loss_alpha"] * factor["alpha"]
    total.mean().backward()
    out["loss_actor"].mean().backward()
    case.assert_close(log_prob.grad * factor["policy"], "grad/sample_log_probs")
    for name in names:
        case.assert_close(kl[name].grad * factor["kl"], f"grad/{name}_kl")
    for name, (dual, _) in duals.items():
        slope = torch.sigmoid(dual.raw.detach())  # of softplus, between value and raw parameter
        case.assert_close(dual.raw.grad / slope, f"grad/{name}")


if __name__ == "__main__":
    pytest.main([__file__])
