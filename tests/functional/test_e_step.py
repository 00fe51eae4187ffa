from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mpo_torchrl.functional import (
    categorical_improvement,
    categorical_temperature_loss,
    effective_sample_size,
    nonparametric_kl,
    nonparametric_weights,
    out_of_bounds_cost,
)

VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20)
TEMPERATURES = st.floats(0.0625, 1e4, width=32)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def row(values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_weights_by_hand() -> None:
    weight = nonparametric_weights(row([0.0, math.log(4.0)]), temperature=2.0)
    torch.testing.assert_close(weight, row([1 / 3, 2 / 3]))


@given(VALUES, TEMPERATURES)
@settings(deadline=None)
def test_weights_sum_to_one(values, temperature) -> None:
    weight = nonparametric_weights(row(values), temperature)
    torch.testing.assert_close(weight.sum(-1), torch.ones(1, dtype=torch.float64))


@given(VALUES, TEMPERATURES, st.integers(-(2**40), 2**40))
@settings(deadline=None)
def test_adding_a_constant_to_q_changes_no_weight(values, temperature, constant) -> None:
    q_value = row([float(round(v)) for v in values])  # integers, so that the sum is exact
    shifted = nonparametric_weights(q_value + constant, temperature)
    assert torch.equal(shifted, nonparametric_weights(q_value, temperature))


@given(VALUES, TEMPERATURES)
@settings(deadline=None)
def test_kl_of_weights_lies_between_zero_and_log_n(values, temperature) -> None:
    kl = nonparametric_kl(nonparametric_weights(row(values), temperature)).item()
    assert -1e-7 <= kl <= math.log(len(values)) + 1e-7


@given(VALUES, TEMPERATURES)
@settings(deadline=None)
def test_effective_sample_size_lies_between_one_and_n(values, temperature) -> None:
    size = effective_sample_size(nonparametric_weights(row(values), temperature)).item()
    assert 1 - 1e-9 <= size <= len(values) + 1e-9


def test_uniform_weights_spend_no_kl_and_count_every_action() -> None:
    weight = torch.full((2, 3, 5), 0.2, dtype=torch.float64)
    torch.testing.assert_close(
        nonparametric_kl(weight), torch.zeros(2, 3).double(), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(effective_sample_size(weight), torch.full((2, 3), 5.0).double())


def test_the_effective_sample_size_of_no_weight_at_all_is_zero() -> None:
    assert effective_sample_size(torch.zeros(2, 5)).tolist() == [0.0, 0.0]


def test_the_effective_sample_size_does_not_depend_on_what_weights_sum_to() -> None:
    size = effective_sample_size(row([1.0, 2.0, 3.0]))  # 36 / 14
    torch.testing.assert_close(size, torch.tensor([18 / 7], dtype=torch.float64))


def test_a_single_action_has_all_the_weight() -> None:
    assert torch.equal(nonparametric_weights(torch.tensor([[7.0]]), 0.1), torch.ones(1, 1))


def test_weights_carry_no_gradient() -> None:
    q_value = torch.randn(3, 4, requires_grad=True)
    temperature = torch.tensor(1.0, requires_grad=True)
    assert not nonparametric_weights(q_value, temperature).requires_grad


@pytest.mark.parametrize("trained", [0, 1, 2], ids=["q_value", "logits", "temperature"])
def test_an_improved_policy_carries_no_gradient(trained: int) -> None:
    given = [torch.randn(3, 4), torch.randn(3, 4), torch.tensor(1.0)]
    given[trained].requires_grad_()
    assert not categorical_improvement(*given).requires_grad


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_forbidden_action_may_have_any_value(value: float) -> None:
    q_value, logits = torch.tensor([[1.0, value, 2.0]]), torch.tensor([[0.5, -math.inf, 0.0]])
    temperatures = torch.full((2,), 0.7, requires_grad=True)
    found, expected = (
        (categorical_improvement(q, prior, eta), categorical_temperature_loss(q, prior, eta, 0.1))
        for q, prior, eta in zip(
            (q_value, q_value[:, ::2]), (logits, logits[:, ::2]), temperatures, strict=True
        )
    )
    assert found[0][0, 1] == -math.inf
    torch.testing.assert_close(found[0][:, ::2], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    slope, expected_slope = torch.autograd.grad((found[1] + expected[1]).sum(), temperatures)[0]
    torch.testing.assert_close(slope, expected_slope)


@DTYPES
@pytest.mark.parametrize("temperature", [2.5e-8, 1.0, 1e6])
def test_extreme_values_stay_finite(dtype, temperature) -> None:
    q_value = torch.tensor([[-1e30, 0.0, 1e30], [1e4, 1e4, 1e4]], dtype=dtype)
    weight = nonparametric_weights(q_value, temperature)
    assert weight.isfinite().all() and nonparametric_kl(weight).isfinite().all()


def test_cost_is_the_distance_to_the_box() -> None:
    action = torch.tensor([[[3.0, -5.0], [0.0, 1.0], [1.5, 0.0]]])
    low, high = torch.tensor([-1.0, -1.0]), torch.tensor([0.0, 2.0])
    expected = torch.tensor([[-5.0, 0.0, -1.5]])
    torch.testing.assert_close(out_of_bounds_cost(action, low, high), expected)


@pytest.mark.parametrize("function", [nonparametric_kl, effective_sample_size])
def test_no_samples_raises(function) -> None:
    with pytest.raises(ValueError, match="N at least 1, one entry an action"):
        function(torch.zeros(3, 0))
    with pytest.raises(ValueError, match="N at least 1, one entry an action"):
        nonparametric_weights(torch.zeros(()), 1.0)


if __name__ == "__main__":
    pytest.main([__file__])
