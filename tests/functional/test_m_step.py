from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence
from torch.testing import assert_close

from mpo_torchrl.functional import decoupled_gaussian_kl, decoupled_gaussian_nll

BATCHES = pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
LOCATIONS, SCALES = st.floats(-10, 10), st.floats(0.01, 10)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def gaussian(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return draw(*shape, seed=seed), draw(*shape, seed=seed + 1).exp()


@given(LOCATIONS, SCALES, LOCATIONS, SCALES)
@settings(deadline=None)
def test_kls_are_never_negative(loc_ref, scale_ref, loc, scale) -> None:
    numbers = (torch.tensor([x]) for x in (loc_ref, scale_ref, loc, scale))
    kl_mean, kl_stddev = decoupled_gaussian_kl(*numbers)
    assert kl_mean >= 0 and kl_stddev >= -1e-7


@BATCHES
def test_kls_of_equal_policies_are_zero(batch) -> None:
    policy = gaussian(*batch, 3)
    for kl in decoupled_gaussian_kl(*policy, *policy):
        assert torch.equal(kl, torch.zeros(*batch, 3, dtype=torch.float64))


@pytest.mark.parametrize("narrower", [1e-2, 1e-3, 1e-8, 1e-12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_kl_from_a_far_narrower_reference_is_finite(
    dtype: torch.dtype, narrower: float
) -> None:
    scale_ref = torch.tensor([narrower], dtype=dtype)
    zero, scale = torch.zeros_like(scale_ref), torch.ones_like(scale_ref).requires_grad_()
    _, kl_stddev = decoupled_gaussian_kl(zero, scale_ref, zero, scale)
    kl_stddev.sum().backward()
    exact = (scale_ref.double().square() - 1) / 2 - scale_ref.double().log()
    assert_close(kl_stddev.detach().double(), exact, rtol=5e-3, atol=0)
    assert_close(scale.grad, 1 - scale_ref.square())


@BATCHES
def test_each_kl_is_that_of_gaussians_sharing_the_other_parameter(batch) -> None:
    (loc_ref, scale_ref), (loc, scale) = gaussian(*batch, 3), gaussian(*batch, 3, seed=2)
    kl_mean, kl_stddev = decoupled_gaussian_kl(loc_ref, scale_ref, loc, scale)
    reference = Normal(loc_ref, scale_ref)
    assert_close(kl_mean, kl_divergence(reference, Normal(loc, scale_ref)))
    assert_close(kl_stddev, kl_divergence(reference, Normal(loc_ref, scale)))


@BATCHES
def test_nll_is_that_of_the_two_mixed_gaussians(batch) -> None:
    (loc_ref, scale_ref), (loc, scale) = gaussian(*batch, 3), gaussian(*batch, 3, seed=2)
    action = draw(*batch, 5, 3, seed=4)
    weight = torch.softmax(draw(*batch, 5, seed=5), -1) * 2  # a penalty makes them sum to 2
    nll = decoupled_gaussian_nll(action, weight, loc_ref, scale_ref, loc, scale)
    by_sample = action.movedim(-2, 0)
    log_prob = Independent(Normal(loc, scale_ref), 1).log_prob(by_sample)
    log_prob = log_prob + Independent(Normal(loc_ref, scale), 1).log_prob(by_sample)
    assert_close(nll, -(weight.movedim(-1, 0) * log_prob).sum(0))


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-3, 5.0])
def test_nll_is_in_proportion_to_the_weights_whatever_they_sum_to(size: float) -> None:
    policies = (*gaussian(4, 2), *(tensor.requires_grad_() for tensor in gaussian(4, 2, seed=2)))
    action, weight = draw(4, 5, 2, seed=4), torch.softmax(draw(4, 5, seed=5), -1)
    one, other = (decoupled_gaussian_nll(action, w, *policies) for w in (weight, size * weight))
    assert_close(other, size * one, atol=0, rtol=1e-7)
    gradients = (torch.autograd.grad(nll.sum(), policies[2:]) for nll in (one, other))
    for expected, found in zip(*gradients, strict=True):
        assert_close(found, size * expected, atol=0, rtol=1e-7)


def test_nll_is_least_at_the_weighted_mean_and_spread() -> None:
    (loc_ref, scale_ref), action = gaussian(4, 2), draw(4, 9, 2, seed=4)
    weight = torch.softmax(draw(4, 9, seed=5), -1)
    row = weight.unsqueeze(-1)
    loc = (row * action).sum(-2).requires_grad_()
    spread = (row * (action - loc_ref.unsqueeze(-2)).square()).sum(-2)
    scale = spread.sqrt().requires_grad_()
    decoupled_gaussian_nll(action, weight, loc_ref, scale_ref, loc, scale).sum().backward()
    assert_close(loc.grad, torch.zeros_like(loc), atol=1e-12, rtol=0)
    assert_close(scale.grad, torch.zeros_like(scale), atol=1e-12, rtol=0)


def test_nll_teaches_the_policy_only() -> None:
    policy = [tensor.requires_grad_() for tensor in gaussian(4, 2)]
    action, weight = draw(4, 5, 2).requires_grad_(), torch.full((4, 5), 0.2).double()
    weight.requires_grad_()
    decoupled_gaussian_nll(action, weight, *gaussian(4, 2, seed=2), *policy).sum().backward()
    assert action.grad is None and weight.grad is None
    assert all(bool(tensor.grad.ne(0).all()) for tensor in policy)


def test_gradients_are_those_of_finite_differences() -> None:
    reference, action = gaussian(3, 2), draw(3, 5, 2)
    weight = torch.softmax(draw(3, 5), -1)
    policy = [tensor.requires_grad_() for tensor in gaussian(3, 2, seed=2)]

    def total(loc, scale):
        kl_mean, kl_stddev = decoupled_gaussian_kl(*reference, loc, scale)
        nll = decoupled_gaussian_nll(action, weight, *reference, loc, scale)
        return nll + kl_mean.sum(-1) + kl_stddev.sum(-1)

    assert torch.autograd.gradcheck(total, policy)


def test_shapes_that_disagree_raise() -> None:
    policy = gaussian(4, 2)
    with pytest.raises(ValueError, match=r"\[\*B, N, A\], \[\*B, N\] and \[\*B, A\]"):
        decoupled_gaussian_nll(draw(5, 4, 2), torch.ones(5, 4), *policy, *policy)


if __name__ == "__main__":
    pytest.main([__file__])
