from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import (
    Beta,
    Categorical,
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.testing import assert_close
from torchrl.modules import IndependentNormal, TanhNormal

from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.functional import decoupled_gaussian_kl, decoupled_gaussian_nll
from mpo_torchrl.m_step import CategoricalMStep, DistributionMStep, GaussianMStep

BATCHES = pytest.mark.parametrize("batch", [(4,), (2, 3)])


def gaussian_m_step(shape: tuple[int, ...] = (2,)) -> GaussianMStep:
    return GaussianMStep(KLMultiplier(0.1, 1.0, shape=shape), KLMultiplier(0.1, 1.0, shape=shape))


def improved_by(policy, batch, key="action") -> TensorDict:
    action = policy.sample((5,)).movedim(0, -2)
    weight = torch.softmax(torch.randn(*batch, 5), -1)
    return TensorDict({key: action, "weight": weight})


@BATCHES
@pytest.mark.parametrize("shape", [(2,), ()])
def test_gaussian_fit_is_that_of_the_functions(batch, shape) -> None:
    loc_ref, scale_ref = torch.randn(*batch, 2), torch.rand(*batch, 2) + 0.1
    loc, scale = torch.randn(*batch, 2), torch.rand(*batch, 2) + 0.1
    improved = improved_by(IndependentNormal(loc_ref, scale_ref), batch)
    improved.update({"loc": loc_ref, "scale": scale_ref})
    fit = gaussian_m_step(shape)(improved, IndependentNormal(loc, scale))
    reference = loc_ref, scale_ref
    action, weight = improved["action"], improved["weight"]
    assert_close(fit.nll, decoupled_gaussian_nll(action, weight, *reference, loc, scale))
    for kl, expected in zip(
        fit.kl.values(), decoupled_gaussian_kl(*reference, loc, scale), strict=True
    ):
        assert_close(kl, expected if shape else expected.sum(-1))
    entropy = Independent(Normal(loc, scale), 1).entropy()
    assert_close(fit.readings, {"entropy": entropy, "policy_stddev": scale.mean(-1)})


@BATCHES
def test_squashing_changes_nothing_in_the_fit(batch) -> None:
    loc, scale = torch.randn(*batch, 2), torch.rand(*batch, 2) + 0.1
    improved = improved_by(IndependentNormal(loc, scale), batch)
    improved.update({"loc": loc, "scale": scale})
    plain = gaussian_m_step()(improved, IndependentNormal(loc + 0.1, scale * 1.1))
    squashed = improved.copy().rename_key_("action", "base_action")
    squashed["action"] = squashed["base_action"].tanh()
    fit = gaussian_m_step()(squashed, TanhNormal(loc + 0.1, scale * 1.1))
    assert_close(fit.nll, plain.nll)
    assert_close(fit.kl, plain.kl)


def test_a_squashed_policy_needs_the_sample_before_squashing() -> None:
    policy = TanhNormal(torch.zeros(4, 2), torch.ones(4, 2))
    improved = improved_by(policy, (4,))
    with pytest.raises(ValueError, match="before the squashing; put them under 'base_action'"):
        gaussian_m_step()(improved, policy)


def test_multipliers_of_another_size_raise() -> None:
    policy = IndependentNormal(torch.zeros(4, 2), torch.ones(4, 2))
    improved = improved_by(policy, (4,)).update(
        {"loc": torch.zeros(4, 2), "scale": torch.ones(4, 2)}
    )
    with pytest.raises(ValueError, match="alpha_mean has 3 multipliers and the policy 2"):
        gaussian_m_step((3,))(improved, policy)


def test_a_policy_without_gaussian_is_sent_to_the_other_m_step() -> None:
    policy = Independent(Beta(torch.ones(4, 2), torch.ones(4, 2)), 1)
    with pytest.raises(TypeError, match="use DistributionMStep"):
        gaussian_m_step()(improved_by(policy, (4,)), policy)


@BATCHES
def test_any_distribution_is_fitted_under_its_own_kl(batch) -> None:
    # Not mirror images of each other, whose KL is the same in both directions.
    a, b, c = torch.rand(3, *batch, 2) + 1
    reference, policy = Independent(Beta(a, b), 1), Independent(Beta(c, a), 1)
    improved = improved_by(reference, batch)
    fit = DistributionMStep(KLMultiplier(0.1, 1.0))(improved, policy, reference)
    log_prob = policy.log_prob(improved["action"].movedim(-2, 0)).movedim(0, -1)
    assert_close(fit.nll, -(improved["weight"] * log_prob).sum(-1))
    assert_close(fit.kl["policy"], kl_divergence(reference, policy))


@BATCHES
def test_a_full_covariance_is_fitted(batch) -> None:
    reference = MultivariateNormal(torch.zeros(*batch, 2), torch.eye(2).expand(*batch, 2, 2))
    policy = MultivariateNormal(torch.ones(*batch, 2), torch.eye(2).expand(*batch, 2, 2))
    fit = DistributionMStep(KLMultiplier(0.1, 1.0))(
        improved_by(reference, batch), policy, reference
    )
    assert_close(fit.kl["policy"], torch.ones(batch))


def test_without_a_kl_the_samples_estimate_it() -> None:
    torch.manual_seed(0)
    exact = [Independent(Normal(torch.full((4, 2), m), torch.ones(4, 2)), 1) for m in (0.0, 0.5)]
    reference, policy = (_Opaque(dist) for dist in exact)
    action = reference.sample((50_000,)).movedim(0, -2)
    improved = TensorDict(action=action, weight=torch.full((4, 50_000), 1 / 50_000))
    fit = DistributionMStep(KLMultiplier(0.1, 1.0))(improved, policy, reference)
    assert_close(fit.kl["policy"], kl_divergence(*exact), atol=0.02, rtol=0)
    assert_close(fit.readings["entropy"], -policy.log_prob(action.movedim(-2, 0)).mean(0))


def test_an_estimate_of_a_kl_pays_for_no_move() -> None:
    reference, policy = (
        _Opaque(Independent(Normal(torch.full((4, 1), m), torch.ones(4, 1)), 1)) for m in (0.0, 0.1)
    )
    improved = TensorDict(action=torch.full((4, 3, 1), 2.0), weight=torch.full((4, 3), 1 / 3))
    fit = DistributionMStep(KLMultiplier(0.1, 1.0))(improved, policy, reference)
    assert (fit.kl["policy"] > 0).all()  # although all three became likelier


def test_the_entropy_is_that_of_the_policy_not_of_its_reference() -> None:
    reference, policy = (
        Independent(Beta(torch.full((4, 2), a), torch.full((4, 2), b)), 1)
        for a, b in ((8.0, 2.0), (2.0, 8.0))
    )
    fit = DistributionMStep(KLMultiplier(0.1, 1.0))(improved_by(reference, (4,)), policy, reference)
    assert_close(fit.readings["entropy"], policy.entropy())


@BATCHES
def test_choices_are_fitted_whole(batch) -> None:
    logits_ref, logits = torch.randn(2, *batch, 3)
    weight = torch.softmax(torch.randn(*batch, 3), -1)
    improved = TensorDict(weight=weight, logits=logits_ref)
    fit = CategoricalMStep(KLMultiplier(0.1, 1.0))(improved, logits)
    reference, policy = Categorical(logits=logits_ref), Categorical(logits=logits)
    assert_close(fit.nll, -(weight * policy.logits).sum(-1))
    assert_close(fit.kl["policy"], kl_divergence(reference, policy))
    assert_close(fit.readings, {"entropy": policy.entropy()})


def test_choices_are_targets_that_do_not_learn_from_the_fit() -> None:
    weight, logits_ref, logits = (torch.rand(4, 3, requires_grad=True) for _ in range(3))
    improved = TensorDict(weight=weight, logits=logits_ref)
    fit = CategoricalMStep(KLMultiplier(0.1, 1.0))(improved, logits)
    (fit.nll + fit.kl["policy"]).sum().backward()
    assert weight.grad is None and logits_ref.grad is None and logits.grad is not None


class _Opaque(torch.distributions.Distribution):
    """A distribution that torch has no KL for."""

    def __init__(self, dist: torch.distributions.Distribution) -> None:
        super().__init__(dist.batch_shape, dist.event_shape, validate_args=False)
        self.dist = dist

    def sample(self, sample_shape=()):
        return self.dist.sample(sample_shape)

    def log_prob(self, value):
        return self.dist.log_prob(value)


if __name__ == "__main__":
    pytest.main([__file__])
