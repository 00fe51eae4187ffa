from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mpo_torchrl.dual import ActionPenalty, KLMultiplier, LagrangeMultiplier, Temperature

FORMS = pytest.mark.parametrize("parametrization", ["softplus", "exp"])


@FORMS
@pytest.mark.parametrize("init", [1e-6, 1e-3, 1.0, 10.0, 100.0, 1000.0])
def test_a_multiplier_starts_at_the_value_it_is_given(parametrization, init) -> None:
    multiplier = LagrangeMultiplier(init, parametrization=parametrization)
    assert multiplier().item() == pytest.approx(init, rel=1e-5)


@FORMS
def test_a_multiplier_at_the_floor_can_rise_again(parametrization) -> None:
    multiplier = LagrangeMultiplier(1.0, parametrization=parametrization)
    multiplier.raw.data.fill_(-1000.0)
    floor = math.exp(-18) if parametrization == "exp" else math.log1p(math.exp(-18)) + 1e-8
    assert multiplier().item() == pytest.approx(floor, rel=1e-5)
    (-multiplier()).backward()
    assert multiplier.raw.grad < 0


@FORMS
def test_a_multiplier_does_not_sink_below_the_floor(parametrization) -> None:
    multiplier = LagrangeMultiplier(1e-7, shape=(2,), parametrization=parametrization)
    optimizer = torch.optim.Adam(multiplier.parameters(), lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        multiplier().sum().backward()  # as where a bound is never reached
        optimizer.step()
    assert (multiplier.raw > -18.5).all()


@FORMS
def test_a_start_below_the_floor_is_refused_and_one_at_the_floor_is_not(parametrization) -> None:
    multiplier = LagrangeMultiplier(1.0, parametrization=parametrization)
    multiplier.raw.data.fill_(-1000.0)
    least = multiplier().item()
    multiplier.assign(least)
    assert multiplier().item() == pytest.approx(least, rel=1e-5)
    with pytest.raises(ValueError, match="starts at [0-9.e-]+ or above, got 1e-09"):
        LagrangeMultiplier(1e-9, parametrization=parametrization)


@pytest.mark.parametrize("raw", [-10.0, 0.0, 3.0, 25.0, 1000.0])
def test_value_and_slope_are_those_of_softplus(raw) -> None:
    multiplier = LagrangeMultiplier(1.0).double()
    multiplier.raw.data.fill_(raw)
    multiplier().backward()
    exact = raw + math.log1p(math.exp(-raw)) if raw > 0 else math.log1p(math.exp(raw))
    assert_close(multiplier().item(), exact + 1e-8, rtol=1e-12, atol=0)
    assert_close(multiplier.raw.grad.item(), 1 / (1 + math.exp(-raw)), rtol=1e-12, atol=0)


@FORMS
def test_reset_brings_the_initial_value_back(parametrization) -> None:
    multiplier = LagrangeMultiplier(3.0, shape=(2,), parametrization=parametrization)
    multiplier.assign(7.0)
    multiplier.reset_parameters()
    assert_close(multiplier().detach(), torch.full((2,), 3.0))


def test_numbers_of_another_shape_are_refused() -> None:
    multiplier = LagrangeMultiplier(3.0, shape=(2,))
    with pytest.raises(ValueError, match=r"one number or of shape \[2\], got one of shape \[3\]"):
        multiplier.assign(torch.ones(3))
    assert_close(multiplier().detach(), torch.full((2,), 3.0))


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_multiplier_is_positive_and_finite(value) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        LagrangeMultiplier(value)
    with pytest.raises(ValueError, match="must be positive and finite"):
        LagrangeMultiplier(1.0).assign(value)


def test_an_unknown_parametrization_raises() -> None:
    with pytest.raises(ValueError, match="'softplus' or 'exp', got 'square'"):
        LagrangeMultiplier(1.0, parametrization="square")


@pytest.mark.parametrize("epsilon", [0.0, -0.1, math.inf, math.nan])
def test_a_bound_is_positive_and_finite(epsilon) -> None:
    with pytest.raises(ValueError, match="epsilon_mean is a bound on a KL"):
        KLMultiplier(epsilon, 1.0, name="epsilon_mean")
    with pytest.raises(ValueError, match="epsilon is a bound on a KL"):
        Temperature(0.1, 1.0).set_epsilon(epsilon)


def test_a_bound_keeps_its_digits_when_cast_to_float64() -> None:
    assert Temperature(0.1, 1.0).double().epsilon.item() == 0.1


def test_a_bound_written_into_the_buffer_survives_a_cast() -> None:
    temperature = Temperature(0.1, 1.0)
    temperature.epsilon.fill_(0.5)
    assert temperature.double().epsilon.item() == 0.5


def test_descent_finds_the_temperature_that_spends_the_bound() -> None:
    torch.manual_seed(0)
    q_value = torch.randn(64, 20)
    temperature = Temperature(0.1, 10.0)
    optimizer = torch.optim.Adam(temperature.parameters(), lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        temperature.loss(q_value).mean().backward()
        optimizer.step()
    weight = torch.softmax(q_value / temperature().detach(), -1)
    spent = (weight * (20 * weight).log()).sum(-1).mean()
    assert spent.item() == pytest.approx(0.1, rel=1e-3)


def test_a_kl_above_its_bound_raises_the_multiplier_and_one_below_lowers_it() -> None:
    alpha = KLMultiplier(0.1, 1.0, shape=(2,))
    alpha.loss(torch.tensor([[0.3, 0.01]])).sum().backward()
    assert alpha.raw.grad[0] < 0 < alpha.raw.grad[1]


def test_a_penalty_without_bounds_raises() -> None:
    with pytest.raises(ValueError, match="needs a bounded action space.*epsilon_penalty=None"):
        ActionPenalty(0.001, 1.0, low=torch.tensor([-torch.inf]), high=torch.ones(1))


if __name__ == "__main__":
    pytest.main([__file__])
