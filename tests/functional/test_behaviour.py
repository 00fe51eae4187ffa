from __future__ import annotations

import math

import pytest
import torch

from mpo_torchrl.functional import behaviour_weights, sampled_advantage, temperature_loss, vmpo_kl

SHAPES = pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 1, 3)], ids=str)


def test_the_advantage_is_that_over_the_mean_of_the_policys_actions() -> None:
    q_policy = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, -3.0]])
    found = sampled_advantage(torch.tensor([5.0, -4.0]), q_policy)
    torch.testing.assert_close(found, torch.tensor([2.0, -3.0]))


@pytest.mark.parametrize("value", [0.1, 0.7, -1234.567])
def test_equal_values_have_no_advantage_at_all(value: float) -> None:
    found = sampled_advantage(torch.full((4,), value), torch.full((4, 7), value))
    assert torch.equal(found, torch.zeros(4))


def test_neither_advantage_nor_weight_carries_gradient() -> None:
    q_taken, q_policy = torch.randn(4, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    temperature = torch.tensor(1.0, requires_grad=True)
    advantage = sampled_advantage(q_taken, q_policy)
    assert not advantage.requires_grad
    assert not behaviour_weights(q_taken, temperature).requires_grad


def test_values_of_other_states_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \[\*B\] and \[\*B, N\], got \(4, 1\)"):
        sampled_advantage(torch.zeros(4, 1), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="q_policy must be"):
        sampled_advantage(torch.zeros(4), torch.zeros(4, 0))


def test_weights_are_those_worked_by_hand() -> None:
    # exp(A / 2) = 1, e, e^2 for A = 0, 2, 4.
    total = 1 + math.e + math.e**2
    found = behaviour_weights(torch.tensor([0.0, 2.0, 4.0]), temperature=2.0)
    expected = 3 * torch.tensor([1.0, math.e, math.e**2]) / total
    torch.testing.assert_close(found, expected)


@SHAPES
def test_weights_are_one_on_average_and_never_negative(shape: tuple[int, ...]) -> None:
    weight = behaviour_weights(torch.randn(shape), temperature=0.7)
    assert weight.shape == shape and (weight >= 0).all()
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("max_weight", [1.0, 2.0, 20.0])
def test_no_weight_is_above_what_they_are_clipped_to(temperature, max_weight) -> None:
    advantage = 10 * torch.randn(64)
    weight = behaviour_weights(advantage, temperature, max_weight)
    free = behaviour_weights(advantage, temperature, max_weight=64.0)
    assert weight.max() <= max_weight
    torch.testing.assert_close(weight, free.clamp(max=max_weight))


def test_an_offset_of_the_advantages_changes_nothing() -> None:
    advantage = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(
        behaviour_weights(advantage + 1000, 0.5), behaviour_weights(advantage, 0.5)
    )


@pytest.mark.parametrize("advantage", [torch.full((8,), 3.0), torch.randn(8)])
def test_equal_advantages_or_an_infinite_temperature_weigh_all_alike(advantage) -> None:
    temperature = 0.1 if advantage.std() == 0 else math.inf
    torch.testing.assert_close(behaviour_weights(advantage, temperature), torch.ones(8))


def test_what_is_masked_weighs_nothing_and_does_not_count() -> None:
    advantage = torch.randn(4, 6)
    mask = torch.arange(24).reshape(4, 6) % 3 != 0
    weight = behaviour_weights(advantage.masked_fill(~mask, 99.0), 0.5, mask=mask)
    assert not weight[~mask].any()
    torch.testing.assert_close(weight[mask], behaviour_weights(advantage[mask], 0.5))


def test_the_dual_over_the_batch_prices_the_kl_that_these_weights_spend() -> None:
    advantage = torch.randn(1, 32, dtype=torch.float64)
    temperature = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    temperature_loss(advantage, temperature, epsilon=0.3).sum().backward()
    share = behaviour_weights(advantage, temperature, max_weight=32.0) / 32
    spent = (share * (32 * share).log()).sum()
    torch.testing.assert_close(temperature.grad, 0.3 - spent)
    torch.testing.assert_close(spent, vmpo_kl(advantage, temperature.detach(), 1.0))


@pytest.mark.parametrize("max_weight", [0.5, math.nan])
def test_clipping_below_the_mean_is_refused(max_weight: float) -> None:
    with pytest.raises(ValueError, match="max_weight must be at least 1, the mean"):
        behaviour_weights(torch.zeros(3), 1.0, max_weight)


if __name__ == "__main__":
    pytest.main([__file__])
