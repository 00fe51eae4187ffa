from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from mpo_torchrl.functional import (
    alpha_loss,
    kl_penalty,
    nonparametric_weights,
    optimal_temperature,
    temperature_loss,
)

BATCHES = pytest.mark.parametrize("batch", [(), (4,), (2, 3)])


def draw(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_temperature_loss_by_hand() -> None:
    q_value = torch.tensor([[0.0, 2 * math.log(3.0)]], dtype=torch.float64)
    loss = temperature_loss(q_value, torch.tensor(2.0, dtype=torch.float64), epsilon=0.5)
    assert_close(loss, torch.tensor([1.0 + 2 * math.log(2.0)], dtype=torch.float64))


@BATCHES
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_slope_is_budget_minus_spent_kl(batch, temperature) -> None:
    q_value = draw(*batch, 6)
    eta = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    loss = temperature_loss(q_value, eta, epsilon=0.1)
    assert loss.shape == batch
    loss.mean().backward()
    weight = nonparametric_weights(q_value, temperature)
    assert_close(eta.grad, 0.1 - (weight * (6 * weight).log()).sum(-1).mean())


def test_slope_does_not_depend_on_how_values_differ_between_states() -> None:
    def slope(offset: torch.Tensor) -> torch.Tensor:
        eta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        temperature_loss(draw(5, 20) + offset, eta, epsilon=0.1).mean().backward()
        return eta.grad

    assert_close(slope(1000.0 * draw(5, 1)), slope(torch.zeros(5, 1).double()), rtol=1e-9, atol=0)


def test_temperature_loss_teaches_the_temperature_only() -> None:
    q_value = draw(3, 4).requires_grad_()
    eta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    temperature_loss(q_value, eta, 0.1).sum().backward()
    assert q_value.grad is None and eta.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [2.5e-8, 1.0, 1e6])
def test_extreme_values_stay_finite(dtype, temperature) -> None:
    q_value = torch.tensor([[-1e30, 0.0, 1e30], [1e4, 1e4, 1e4]], dtype=dtype)
    eta = torch.tensor(temperature, dtype=torch.float32, requires_grad=True)
    loss = temperature_loss(q_value, eta, 0.1)
    loss.sum().backward()
    assert loss.isfinite().all() and eta.grad.isfinite()


def test_the_best_temperature_carries_no_gradient() -> None:
    q_value = draw(3, 4).requires_grad_()
    assert not optimal_temperature(q_value, 0.1).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_best_temperature_is_solved_for_in_float32_at_least(dtype) -> None:
    q_value = draw(6, 20).to(dtype)
    expected = optimal_temperature(q_value.float(), 0.01).to(dtype)
    assert optimal_temperature(q_value, 0.01) == expected


@pytest.mark.parametrize("epsilon", [1e-7, 1e-6, 1e-4, 0.1, 2.9])
def test_the_best_temperature_of_any_bound_is_solved_for_in_float32(epsilon: float) -> None:
    q_value = draw(6, 20).float()
    temperature = optimal_temperature(q_value, epsilon)
    exact = optimal_temperature(q_value.double(), epsilon)
    assert_close(temperature.double(), exact, rtol=1e-4, atol=0.0)
    log_weight = torch.log_softmax(q_value.double() / exact, -1)
    spent = (log_weight.exp() * (log_weight + math.log(20))).sum(-1).mean()
    assert_close(spent.item(), epsilon, rtol=1e-6, atol=0.0)


@BATCHES
@pytest.mark.parametrize("per_dimension", [True, False])
def test_penalty_teaches_the_policy_and_the_loss_the_multiplier(batch, per_dimension) -> None:
    shape = (3,) if per_dimension else ()
    kl = draw(*batch, *shape).abs().requires_grad_()
    alpha = torch.full(shape, 2.0, dtype=torch.float64, requires_grad=True)

    penalty = kl_penalty(kl, alpha)
    assert penalty.shape == batch
    penalty.sum().backward()
    assert alpha.grad is None
    assert_close(kl.grad, torch.full_like(kl, 2.0))

    kl.grad = None
    loss = alpha_loss(kl, alpha, epsilon=0.1)
    assert loss.shape == batch
    loss.sum().backward()
    assert kl.grad is None
    assert_close(alpha.grad, (0.1 - kl.detach()).reshape(-1, *shape).sum(0))


def test_no_samples_raises() -> None:
    with pytest.raises(ValueError, match=r"N at least 1, one entry an action, got shape \(3, 0\)"):
        temperature_loss(torch.zeros(3, 0), torch.tensor(1.0), 0.1)


def test_a_temperature_of_no_state_or_no_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="q_value must hold at least one state"):
        optimal_temperature(torch.zeros(0, 3), 0.1)
    for epsilon in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="epsilon must be positive"):
            optimal_temperature(torch.randn(2, 3), epsilon)


if __name__ == "__main__":
    pytest.main([__file__])
