from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict
from torch import distributions as d
from torchrl.modules import TruncatedNormal

from mpo_torchrl.dual import KLMultiplier
from mpo_torchrl.e_step import AdvantageEStep
from mpo_torchrl.m_step import LikelihoodMStep


def joint_m_step() -> LikelihoodMStep:
    return LikelihoodMStep({"policy": KLMultiplier(0.1, 1.0)})


def test_the_fit_is_the_weighted_log_likelihood() -> None:
    policy = d.Categorical(probs=torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
    improved = TensorDict(action=torch.tensor([1, 0]), weight=torch.tensor([2.0, 1.0]))
    fit = joint_m_step()(improved, policy, policy)
    expected = torch.tensor([-2 * math.log(0.8), -math.log(0.5)])
    torch.testing.assert_close(fit.nll, expected)


def test_neither_the_action_nor_its_weight_learns_from_the_fit() -> None:
    loc, action, weight = (torch.ones(3, 1, requires_grad=True) for _ in range(3))
    policy = d.Independent(d.Normal(2 * loc, 1.0), 1)
    improved = TensorDict(action=action, weight=weight.squeeze(-1))
    joint_m_step()(improved, policy, policy).nll.sum().backward()
    assert action.grad is None and weight.grad is None and loc.grad is not None


def test_an_impossible_action_without_weight_counts_for_nothing() -> None:
    logits = torch.tensor([[0.0, -torch.inf]], requires_grad=True)
    policy = d.Categorical(logits=logits, validate_args=False)
    improved = TensorDict(action=torch.tensor([1]), weight=torch.tensor([0.0]))
    assert joint_m_step()(improved, policy, policy).nll.item() == 0.0


@pytest.mark.parametrize(
    ("reference", "policy"),
    [
        (d.Categorical(torch.tensor([[0.2, 0.8]])), d.Categorical(torch.tensor([[0.5, 0.5]]))),
        (d.Beta(torch.full((1,), 2.0), 3.0), d.Beta(torch.full((1,), 5.0), 1.0)),
    ],
)
def test_the_kl_is_from_the_reference_to_the_policy(
    reference: d.Distribution, policy: d.Distribution
) -> None:
    improved = TensorDict(action=reference.sample(), weight=torch.ones(1))
    fit = joint_m_step()(improved, policy, reference)
    torch.testing.assert_close(fit.kl["policy"], d.kl_divergence(reference, policy))


def test_the_kl_estimated_from_actions_is_the_kl_in_the_mean_and_never_negative() -> None:
    torch.manual_seed(0)
    count = 100_000
    loc = torch.zeros(count, 1)
    reference = TruncatedNormal(loc, torch.ones_like(loc), low=-1.0, high=1.0)
    policy = TruncatedNormal(loc + 0.5, torch.ones_like(loc), low=-1.0, high=1.0)
    improved = TensorDict(action=reference.sample(), weight=torch.ones(count))
    kl = joint_m_step()(improved, policy, reference).kl["policy"]
    grid = torch.linspace(-1, 1, 20_001).unsqueeze(-1)
    one = TruncatedNormal(torch.zeros(1), torch.ones(1), low=-1.0, high=1.0)
    other = TruncatedNormal(torch.full((1,), 0.5), torch.ones(1), low=-1.0, high=1.0)
    log_one, log_other = one.log_prob(grid), other.log_prob(grid)
    expected = torch.trapezoid(log_one.exp() * (log_one - log_other), grid.squeeze(-1))
    assert (kl >= 0).all()
    assert kl.mean().item() == pytest.approx(expected.item(), rel=0.05)


def test_an_entropy_without_a_formula_is_estimated_from_the_actions() -> None:
    policy = d.TransformedDistribution(d.Normal(torch.zeros(3), 2.0), d.ExpTransform())
    improved = TensorDict(action=policy.sample(), weight=torch.ones(3))
    entropy = joint_m_step()(improved, policy, policy).readings["entropy"]
    torch.testing.assert_close(entropy, -policy.log_prob(improved["action"]))


def test_other_multipliers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'mean' and 'stddev', or 'policy', got \['mean'\]"):
        LikelihoodMStep({"mean": KLMultiplier(0.1, 1.0)})


def test_a_policy_that_is_no_gaussian_is_refused_by_decoupled_multipliers() -> None:
    m_step = LikelihoodMStep({name: KLMultiplier(0.1, 1.0) for name in ("mean", "stddev")})
    policy = d.Categorical(logits=torch.zeros(1, 2))
    improved = TensorDict(action=torch.zeros(1), weight=torch.ones(1))
    with pytest.raises(TypeError, match="got Categorical; use the multiplier 'policy'"):
        m_step(improved, policy, policy)


def test_an_e_step_refuses_an_empty_share() -> None:
    with pytest.raises(ValueError, match="top_k_fraction must be in"):
        AdvantageEStep(KLMultiplier(0.1, 1.0), top_k_fraction=0.0)


if __name__ == "__main__":
    pytest.main([__file__])
