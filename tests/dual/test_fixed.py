from __future__ import annotations

import math

import pytest
import torch

from mpo_torchrl.dual import FixedTemperature
from tests.loss.builders import make_batch, make_loss, total


@pytest.mark.parametrize("value", [0.5, 2.0, math.inf])
def test_it_stays_what_it_is(value: float) -> None:
    loss = make_loss("tanh_normal", temperature=FixedTemperature(value))
    losses = loss(make_batch(4))
    total(losses).backward()
    assert losses["temperature"] == value and losses["loss_temperature"] == 0
    assert set(loss.multipliers()) == {"alpha_mean", "alpha_stddev"}


def test_it_is_no_state_but_moves_with_the_loss() -> None:
    loss = make_loss("gaussian", temperature=FixedTemperature(2.0)).double()
    assert loss.temperature.value.dtype == torch.float64
    assert not [key for key in loss.state_dict() if key.startswith("temperature")]


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="a temperature must be positive, got"):
        FixedTemperature(value)


@pytest.mark.parametrize("value", ["1", None, [1.0, 2.0]], ids=repr)
def test_a_temperature_that_is_no_number_is_refused(value) -> None:
    with pytest.raises(TypeError, match="a temperature must be a number, got"):
        FixedTemperature(value)


def test_there_is_no_bound_to_set() -> None:
    loss = make_loss("gaussian", temperature=FixedTemperature(2.0))
    with pytest.raises(AttributeError, match="is a FixedTemperature, which has no bound"):
        loss.epsilon = 0.1
    with pytest.raises(AttributeError, match="temperature of this loss is a FixedTemperature, not"):
        loss.temperature = 0.1


if __name__ == "__main__":
    pytest.main([__file__])
