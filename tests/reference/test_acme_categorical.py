from __future__ import annotations

import pytest
import torch

import mpo_torchrl.functional as F
from mpo_torchrl.dual import LagrangeMultiplier
from tests.reference.cases import Case, cases

EVERY_CASE = cases("acme_categorical")


def multiplier(case: Case, name: str) -> LagrangeMultiplier:
    made = LagrangeMultiplier(1.0, shape=(1,)).double()
    made.raw.data.copy_(case[f"in/log_{name}"])
    return made


@EVERY_CASE
def test_every_term_equals_acme(case: Case) -> None:
    q_value = case["in/q_values"].movedim(0, -1)
    reference = case["in/target_logits"]
    logits = case["in/online_logits"].clone().requires_grad_()
    temperature, alpha = multiplier(case, "temperature"), multiplier(case, "alpha")
    eta = temperature().squeeze()

    improved = F.categorical_improvement(q_value, reference, eta)
    kl = F.categorical_kl(reference, logits)
    loss_policy = F.categorical_nll(improved.exp(), logits).mean()
    loss_kl = F.kl_penalty(kl.unsqueeze(-1), alpha()).mean()
    loss_alpha = F.alpha_loss(kl.unsqueeze(-1), alpha(), case.config("epsilon_policy")).mean()
    loss_temperature = F.categorical_temperature_loss(
        q_value, reference, eta, case.config("epsilon")
    ).mean()

    case.assert_close(improved, "out/e_step_logits")
    case.assert_close(kl, "out/kl")
    case.assert_close(F.categorical_kl(improved, reference), "out/kl_nonparametric")
    case.assert_close(loss_policy, "out/loss_policy")
    case.assert_close(loss_kl, "out/loss_kl")
    case.assert_close(loss_alpha, "out/loss_alpha")
    case.assert_close(loss_temperature, "out/loss_temperature")

    (loss_policy + loss_kl + loss_alpha + loss_temperature).backward()
    case.assert_close(logits.grad, "grad/online_logits")
    case.assert_close(alpha.raw.grad, "grad/log_alpha")
    # Acme also lets the temperature learn from the cross entropy; weights that carry no
    # gradient leave its own dual.
    case.assert_close(temperature.raw.grad, "grad/loss_temperature_only/log_temperature")


@EVERY_CASE
def test_the_path_that_is_cut_is_the_whole_difference_to_acme(case: Case) -> None:
    q_value = case["in/q_values"].movedim(0, -1)
    reference, logits = case["in/target_logits"], case["in/online_logits"]
    temperature = multiplier(case, "temperature")
    eta = temperature().squeeze()
    improved = torch.log_softmax(q_value / eta + torch.log_softmax(reference, -1), -1)
    cross_entropy = -(improved.exp() * torch.log_softmax(logits, -1)).sum(-1).mean()
    dual = F.categorical_temperature_loss(q_value, reference, eta, case.config("epsilon")).mean()
    (cross_entropy + dual).backward()
    case.assert_close(temperature.raw.grad, "grad/log_temperature")


if __name__ == "__main__":
    pytest.main([__file__])
