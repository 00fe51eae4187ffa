from __future__ import annotations

import pytest
import torch

import mpo_torchrl.functional as F
from tests.reference.cases import Case, cases
from tests.reference.given import make_batch, make_loss

EVERY_CASE = cases("acme_gaussian")


def improved_entries(case: Case) -> dict[str, torch.Tensor]:
    return {
        "action": case.samples_last("in/actions"),
        "state_action_value": case.samples_last("in/q_values"),
        "loc": case["in/target_mean"],
        "scale": case["in/target_stddev"],
    }


def multiplier(case: Case, key: str) -> torch.Tensor:
    raw = case[f"in/log_{key}"].clone().requires_grad_()
    return raw, torch.nn.functional.softplus(raw, threshold=40) + 1e-8


@EVERY_CASE
def test_weights_and_their_kl_equal_acme(case: Case) -> None:
    q_value = case.samples_last("in/q_values")
    weight = F.nonparametric_weights(q_value, case["out/temperature"])
    case.assert_close(weight.movedim(-1, 0), "out/normalized_weights_q")
    case.assert_close(F.nonparametric_kl(weight), "out/kl_nonparametric")


@EVERY_CASE
def test_temperature_loss_and_its_gradient_equal_acme(case: Case) -> None:
    raw, temperature = multiplier(case, "temperature")
    q_value = case.samples_last("in/q_values")
    loss = F.temperature_loss(q_value, temperature, case.config("epsilon")).mean()
    loss.backward()
    case.assert_close(loss, "out/loss_temperature")
    case.assert_close(raw.grad, "grad/log_temperature")


@EVERY_CASE
def test_action_penalty_equals_acme(case: Case) -> None:
    if not case.config("action_penalization"):
        assert "out/negative_cost_out_of_bound" not in case
        return
    cost = F.out_of_bounds_cost(case.samples_last("in/actions"), -1.0, 1.0)
    case.assert_close(cost.movedim(-1, 0), "out/negative_cost_out_of_bound")
    raw, temperature = multiplier(case, "penalty_temperature")
    loss = F.temperature_loss(cost, temperature, case.config("epsilon_penalty")).mean()
    loss.backward()
    case.assert_close(loss, "out/loss_penalty_temperature")
    case.assert_close(raw.grad, "grad/log_penalty_temperature")


@EVERY_CASE
def test_policy_losses_and_kls_equal_acme(case: Case) -> None:
    reference = case["in/target_mean"], case["in/target_stddev"]
    loc, scale = case["in/online_mean"], case["in/online_stddev"]
    action = case.samples_last("in/actions")
    weight = case["out/normalized_weights"].movedim(0, -1)
    # With the online mean and the reference stddev the second half is the reference's own.
    nll = F.decoupled_gaussian_nll(action, weight, *reference, loc, scale).mean()
    expected = case["out/loss_policy_mean"] + case["out/loss_policy_stddev"]
    torch.testing.assert_close(nll, expected, rtol=1e-9, atol=1e-12)
    kl_mean, kl_stddev = F.decoupled_gaussian_kl(*reference, loc, scale)
    if not case.config("per_dim_constraining"):
        kl_mean, kl_stddev = kl_mean.sum(-1), kl_stddev.sum(-1)
    case.assert_close(kl_mean, "out/kl_mean")
    case.assert_close(kl_stddev, "out/kl_stddev")


@EVERY_CASE
def test_mpo_loss_given_a_case_under_its_keys_equals_acme(case: Case) -> None:
    penalized = case.config("action_penalization")
    loss, policy = make_loss(
        case["in/online_mean"],
        case["in/online_stddev"],
        epsilon=case.config("epsilon"),
        epsilon_mean=case.config("epsilon_mean"),
        epsilon_stddev=case.config("epsilon_stddev"),
        epsilon_penalty=case.config("epsilon_penalty") if penalized else None,
        per_dim_constraining=case.config("per_dim_constraining"),
        num_action_samples=case["in/q_values"].shape[0],
    )
    loss.double()
    duals = {"temperature": loss.temperature, "alpha_mean": loss.alpha_mean}
    duals["alpha_stddev"] = loss.alpha_stddev
    if penalized:
        duals["penalty_temperature"] = loss.penalty_temperature
    for name, dual in duals.items():
        dual.raw.data.copy_(case[f"in/log_{name}"].reshape(dual.raw.shape))

    batch = make_batch(case["in/target_mean"], **improved_entries(case))
    out = loss(batch)
    total = out["loss_actor"] + out["loss_temperature"] + out["loss_alpha"]
    total.backward()

    case.assert_close(total, "out/loss")
    case.assert_close(out["loss_temperature"], "out/loss_temperature_total")
    loss_kl = case["out/loss_kl_mean"] + case["out/loss_kl_stddev"]
    policy_loss = case["out/loss_policy_mean"] + case["out/loss_policy_stddev"] + loss_kl
    torch.testing.assert_close(out["loss_actor"], policy_loss, rtol=1e-9, atol=1e-12)
    case.assert_close(out["loss_alpha"], "out/stats/loss_alpha")
    case.assert_close(out["temperature"], "out/temperature")
    case.assert_close(
        loss.e_step(batch)["e_step", "weight"].movedim(-1, 0), "out/normalized_weights"
    )
    online = loss.actor_network_params["module", "0", "module"]
    case.assert_close(online["loc"].grad, "grad/online_mean")
    case.assert_close(online["scale"].grad, "grad/online_stddev")
    for name, dual in duals.items():
        case.assert_close(dual.raw.grad, f"grad/log_{name}")


if __name__ == "__main__":
    pytest.main([__file__])
