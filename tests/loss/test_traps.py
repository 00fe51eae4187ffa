"""What has gone wrong elsewhere: in other implementations of MPO, and around TorchRL's losses."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from mpo_torchrl import MPOLoss
from mpo_torchrl.functional import nonparametric_kl, nonparametric_weights
from tests.loss.builders import (
    loss_entries,
    make_batch,
    make_loss,
    move_policy,
    seeded,
)

# -- a temperature that takes differences between states for its own ------------------------


def settled(loss: MPOLoss, q_value: Tensor) -> tuple[float, float]:
    """Where descent leaves the temperature on values ``[B, N]``, and the KL then spent."""
    optimizer = torch.optim.Adam([loss.temperature.raw], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss.temperature.loss(q_value).mean().backward()
        optimizer.step()
    temperature = loss.temperature().detach()
    kl = nonparametric_kl(nonparametric_weights(q_value, temperature)).mean()
    return temperature.item(), kl.item()


@pytest.mark.parametrize("spread", [3.0, 30.0, 3000.0])
def test_the_temperature_settles_where_its_bound_is_spent_however_states_differ(
    spread: float,
) -> None:
    within, between = torch.randn(64, 20), spread * torch.randn(64, 1)
    alone, _ = settled(make_loss("tanh_normal", epsilon=0.1), within)
    found, kl = settled(make_loss("tanh_normal", epsilon=0.1), within + between)
    assert found == pytest.approx(alone, rel=0.01) and 1.5 < found < 3.0
    assert kl == pytest.approx(0.1, rel=0.05)


# -- a policy without a trust region ------------------------------------------------------


def fitted(loss: MPOLoss, batch: TensorDict, steps: int = 200) -> dict[str, Tensor]:
    """Fits the policy to one E-step for long, its target standing still."""
    optimizer = torch.optim.Adam(
        [
            {"params": loss.network_parameters(), "lr": 3e-3},
            {"params": loss.dual_parameters(), "lr": 0.3},
        ]
    )
    for _ in range(steps):
        optimizer.zero_grad()
        losses = loss(batch)
        (losses["loss_actor"] + losses["loss_alpha"]).backward()
        optimizer.step()
    return losses


def greedy_batch(loss: MPOLoss) -> TensorDict:
    """All weight on the best of 30 draws: a fit without bounds would collapse onto it."""
    batch = loss.e_step(make_batch(6))
    best = batch["e_step", "state_action_value"].argmax(-1)
    batch["e_step", "weight"] = torch.nn.functional.one_hot(best, 30).float()
    return batch


@pytest.mark.parametrize("policy", ["gaussian", "tanh_normal"])
def test_the_policy_stays_within_its_bounds_however_long_it_is_fitted(policy: str) -> None:
    settings = {"epsilon_mean": 0.01, "epsilon_stddev": 0.001, "init_alpha_stddev": 30.0}
    loss = make_loss(policy, num_action_samples=30, **settings)
    losses = fitted(loss, greedy_batch(loss))
    assert 0.2 * 0.01 < losses["kl_mean"] < 1.5 * 0.01
    assert losses["kl_stddev"] < 1.5 * 0.001
    assert losses["alpha_mean"] > 1.0  # the price has risen


# -- settings that are never read ---------------------------------------------------------

CHANGES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("gaussian", {"epsilon": 0.5}, {"loss_temperature"}),
    ("gaussian", {"epsilon_penalty": 0.5}, {"loss_temperature"}),
    ("gaussian", {"epsilon_mean": 0.5}, {"loss_alpha"}),
    ("gaussian", {"epsilon_stddev": 0.5}, {"loss_alpha"}),
    ("beta", {"epsilon_policy": 0.5}, {"loss_alpha"}),
    ("gaussian", {"init_temperature": 0.01}, {"loss_temperature", "loss_actor"}),
    ("gaussian", {"init_penalty_temperature": 0.01}, {"loss_temperature", "loss_actor"}),
    ("gaussian", {"init_alpha_mean": 5.0}, {"loss_actor", "loss_alpha"}),
    ("gaussian", {"init_alpha_stddev": 5.0}, {"loss_actor", "loss_alpha"}),
    ("beta", {"init_alpha_policy": 5.0}, {"loss_actor", "loss_alpha"}),
    ("gaussian", {"loss_function": "l1"}, {"loss_qvalue"}),
    ("gaussian", {"loss_function": "smooth_l1"}, {"loss_qvalue"}),
]


@pytest.mark.parametrize(
    ("policy", "change", "expected"), CHANGES, ids=[f"{c[0]}-{next(iter(c[1]))}" for c in CHANGES]
)
def test_every_number_reaches_the_losses_it_is_for(
    policy: str, change: dict[str, Any], expected: set[str]
) -> None:
    def losses(**kwargs: Any) -> dict[str, Tensor]:
        torch.manual_seed(3)
        loss = move_policy(make_loss(policy, **kwargs))
        return loss_entries(seeded(loss, make_batch(4)))

    before, after = losses(), losses(**change)
    assert {key for key in before if before[key] != after[key]} == expected


def test_no_argument_is_kept_unread() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(MPOLoss.__init__)))
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(inspect.signature(MPOLoss).parameters) <= read


# -- names that TorchRL takes for something else ------------------------------------------


def test_only_losses_are_named_losses() -> None:
    # LossModule wraps every public attribute of the class whose name ends in "loss".
    named = {name for name in dir(MPOLoss) if name.endswith("loss") and not name.startswith("_")}
    assert named == {"qvalue_loss", "temperature_loss", "actor_loss", "alpha_loss"}
    assert all(inspect.isfunction(inspect.unwrap(getattr(MPOLoss, name))) for name in named)


def test_no_entry_but_a_loss_begins_with_loss() -> None:
    keys = [key for key in make_loss().out_keys if key.startswith("loss")]
    assert len(keys) == 4


@pytest.mark.parametrize("init", [100.0, 1000.0, 1e5])
def test_large_multipliers_start_where_they_should_in_float32(init: float) -> None:
    # The inverse of softplus that comes with tensordict is infinite above 88.
    losses = make_loss("gaussian", init_alpha_stddev=init)(make_batch(4))
    assert losses["alpha_stddev"] == init


def test_large_returns_leave_the_temperature_its_gradient() -> None:
    # The plain logarithm of a mean of exponentials has lost it here, in float32.
    slopes = []
    for offset in (0.0, 1e5):
        loss = make_loss("tanh_normal", init_temperature=0.1)
        torch.manual_seed(0)
        batch = loss.e_step(make_batch(6))
        values = (torch.randn(6, 5) * 8).round() / 8  # exact in float32 at any offset
        batch["e_step", "state_action_value"] = values + offset
        value, _ = loss.temperature_loss(batch)
        slopes.append(torch.autograd.grad(value, loss.temperature.raw)[0])
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-5, atol=0.0)


def test_a_loss_of_one_state_and_one_action_is_finite() -> None:
    losses = make_loss("gaussian", num_action_samples=1)(make_batch(1))
    assert all(value.isfinite() for value in losses.values())


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
