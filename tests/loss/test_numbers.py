"""The numbers of a loss that people set, at the start and while it trains."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.loss.builders import (
    DUALS,
    POLICIES,
    make_batch,
    make_loss,
    seeded,
    total,
)


@pytest.mark.parametrize("parametrization", ["softplus", "exp"])
@pytest.mark.parametrize("value", [1e-3, 0.5, 10.0, 1000.0])
def test_initial_values_are_those_one_sees(value: float, parametrization: str) -> None:
    inits = {
        "init_temperature": value,
        "init_penalty_temperature": 2 * value,
        "init_alpha_mean": 3 * value,
        "init_alpha_stddev": 4 * value,
    }
    losses = make_loss(parametrization=parametrization, **inits)(make_batch(4))
    for init, expected in inits.items():
        torch.testing.assert_close(losses[init.removeprefix("init_")], torch.tensor(expected))
    losses = make_loss("beta", init_alpha_policy=value, parametrization=parametrization)(
        make_batch(4)
    )
    torch.testing.assert_close(losses["alpha_policy"], torch.tensor(value))


@pytest.mark.parametrize("policy", POLICIES)
def test_multipliers_are_set_by_assignment(policy: str) -> None:
    loss = make_loss(policy)
    for name in DUALS[policy]:
        before = getattr(loss, name).raw
        setattr(loss, name, 2.5)
        assert getattr(loss, name).raw is before  # in place: an optimizer keeps it
    losses = loss(make_batch(4))
    for name in DUALS[policy]:
        torch.testing.assert_close(losses[name], torch.tensor(2.5))


@pytest.mark.parametrize(
    "kind", [float, np.float32, np.float64, torch.tensor], ids=lambda kind: kind.__name__
)
def test_any_number_can_be_assigned(kind: Callable[[float], Any]) -> None:
    loss = make_loss()
    loss.temperature, loss.epsilon = kind(2.5), kind(0.25)
    losses = loss(make_batch(4))
    assert losses["temperature"] == 2.5 and loss.epsilon == 0.25


def test_each_dimension_can_have_a_multiplier_of_its_own() -> None:
    loss = make_loss()
    loss.alpha_mean = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(loss.alpha_mean().detach(), torch.tensor([1.0, 3.0]))
    assert loss(make_batch(4))["alpha_mean"] == 2.0


@pytest.mark.parametrize(
    ("policy", "bound", "key"),
    [
        ("gaussian", "epsilon", "loss_temperature"),
        ("gaussian", "epsilon_penalty", "loss_temperature"),
        ("gaussian", "epsilon_mean", "loss_alpha"),
        ("tanh_normal", "epsilon_stddev", "loss_alpha"),
        ("beta", "epsilon_policy", "loss_alpha"),
    ],
)
def test_bounds_are_set_by_assignment(policy: str, bound: str, key: str) -> None:
    loss, batch = make_loss(policy), make_batch(4)
    buffer = getattr(loss, bound)
    before = seeded(loss, batch.clone())
    old = float(buffer)
    setattr(loss, bound, old + 0.3)
    assert getattr(loss, bound) is buffer
    torch.testing.assert_close(buffer, torch.tensor(old + 0.3))
    after = seeded(loss, batch.clone())
    multiplier = {"epsilon": "temperature", "epsilon_penalty": "penalty_temperature"}.get(
        bound, bound.replace("epsilon", "alpha")
    )
    multipliers = getattr(loss, multiplier)().detach().sum()
    torch.testing.assert_close(after[key] - before[key], 0.3 * multipliers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["temperature", "penalty_temperature", "alpha_mean", "alpha_stddev"]
)
def test_impossible_multipliers_are_refused(name: str, value: float) -> None:
    loss = make_loss()
    with pytest.raises(ValueError, match=r"Lagrange multiplier of \w+ must be positive and finite"):
        setattr(loss, name, value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["epsilon", "epsilon_penalty", "epsilon_mean", "epsilon_stddev"])
def test_impossible_bounds_are_refused(name: str, value: float) -> None:
    loss = make_loss()
    before = float(getattr(loss, name))
    with pytest.raises(ValueError, match=f"{name} is a bound on a KL divergence and must be"):
        setattr(loss, name, value)
    assert getattr(loss, name) == before


@pytest.mark.parametrize(
    ("policy", "bound"), [("tanh_normal", "epsilon_penalty"), ("gaussian", "epsilon_policy")]
)
def test_a_bound_that_the_loss_does_not_have_cannot_be_set(policy: str, bound: str) -> None:
    loss = make_loss(policy)
    for access in (lambda: setattr(loss, bound, 0.1), lambda: getattr(loss, bound)):
        with pytest.raises(AttributeError, match="hence no bound for it"):
            access()
    assert not hasattr(loss, bound)


def test_duals_want_their_own_learning_rate_and_can_have_it() -> None:
    loss = make_loss()
    optimizer = torch.optim.Adam(
        [
            {"params": loss.network_parameters(), "lr": 0.0},
            {"params": loss.dual_parameters(), "lr": 0.1},
        ]
    )
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    total(loss(make_batch(4))).backward()
    optimizer.step()
    moved = {name.split(".")[0] for name, p in loss.named_parameters() if (p != before[name]).any()}
    assert moved == set(DUALS["gaussian"])


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
