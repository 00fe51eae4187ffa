from __future__ import annotations

import pytest
import torch

from mpo_torchrl import MultiObjectiveMPOLoss
from tests.reference.cases import Case, cases
from tests.reference.given import make_batch, make_loss

EVERY_CASE = cases("mompo")


@EVERY_CASE
def test_the_loss_given_a_case_under_its_keys_equals_the_formula_of_acme(case: Case) -> None:
    epsilons = {f"objective{i}": bound for i, bound in enumerate(case["config/epsilons"].tolist())}
    loss, _ = make_loss(
        case["in/online_mean"],
        case["in/online_stddev"],
        loss_class=MultiObjectiveMPOLoss,
        num_outputs=len(epsilons),
        epsilon=epsilons,
        epsilon_penalty=None,
        epsilon_mean=case.config("epsilon_mean"),
        epsilon_stddev=case.config("epsilon_stddev"),
        per_dim_constraining=case.config("per_dim_constraining"),
        num_action_samples=case["in/q_values"].shape[0],
    )
    loss.double()
    temperatures = [loss.multipliers()[f"temperature_{name}"] for name in epsilons]
    for temperature, raw in zip(temperatures, case["in/log_temperature"], strict=True):
        temperature.raw.data.copy_(raw)
    for name in ("alpha_mean", "alpha_stddev"):
        raw = loss.multipliers()[name].raw
        raw.data.copy_(case[f"in/log_{name}"].reshape(raw.shape))

    given = {
        "action": case["in/actions"].movedim(0, 1),
        "state_action_value": case["in/q_values"].movedim(0, 1),
        "loc": case["in/target_mean"],
        "scale": case["in/target_stddev"],
    }
    batch = make_batch(case["in/target_mean"], num_rewards=len(epsilons), **given)
    out = loss(batch.copy())
    total = out["loss_actor"] + out["loss_temperature"] + out["loss_alpha"]
    total.backward()

    case.assert_close(total, "out/loss")
    case.assert_close(out["loss_temperature"], "out/loss_temperature")
    policy_loss = case["out/loss_policy_mean"] + case["out/loss_policy_stddev"]
    policy_loss = policy_loss + case["out/loss_kl_mean"] + case["out/loss_kl_stddev"]
    torch.testing.assert_close(out["loss_actor"], policy_loss, rtol=1e-9, atol=1e-12)
    case.assert_close(out["loss_alpha"], "out/stats/loss_alpha")
    weight = loss.e_step(batch)["e_step", "weight"]
    case.assert_close(weight.movedim(-1, 0), "out/normalized_weights_sum")
    each = torch.stack([out[f"temperature_{name}"] for name in epsilons])
    case.assert_close(each, "out/temperature")
    spent = torch.stack([out[f"kl_e_step_{name}"] for name in epsilons])
    expected = case["out/kl_nonparametric"].mean(0)
    torch.testing.assert_close(spent, expected, rtol=1e-6, atol=1e-9)

    online = loss.actor_network_params["module", "0", "module"]
    case.assert_close(online["loc"].grad, "grad/online_mean")
    case.assert_close(online["scale"].grad, "grad/online_stddev")
    case.assert_close(torch.stack([t.raw.grad for t in temperatures]), "grad/log_temperature")
    for name in ("alpha_mean", "alpha_stddev"):
        case.assert_close(loss.multipliers()[name].raw.grad, f"grad/log_{name}")


if __name__ == "__main__":
    pytest.main([__file__])
