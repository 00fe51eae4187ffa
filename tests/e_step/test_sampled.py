from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import Beta, Independent, Normal
from torch.testing import assert_close
from torchrl.modules import IndependentNormal, TanhNormal

from mpo_torchrl.dual import ActionPenalty, Temperature
from mpo_torchrl.e_step import SampledEStep

BATCHES = pytest.mark.parametrize("batch", [(4,), (2, 3)])


def first_number(action: torch.Tensor) -> torch.Tensor:
    return action[..., 0]


def make(num_samples: int = 5, penalty: bool = False) -> SampledEStep:
    bounds = {"low": -torch.ones(2), "high": torch.ones(2)}
    return SampledEStep(
        Temperature(0.1, 2.0),
        num_action_samples=num_samples,
        penalty=ActionPenalty(0.001, 0.5, **bounds) if penalty else None,
    )


@BATCHES
@pytest.mark.parametrize("penalty", [False, True])
def test_weights_are_those_of_the_values_plus_those_of_the_cost(batch, penalty) -> None:
    policy = IndependentNormal(torch.zeros(*batch, 2), torch.full((*batch, 2), 2.0))
    improved = make(penalty=penalty)(policy, first_number)
    weight = torch.softmax(improved["action"][..., 0] / 2.0, -1)
    if penalty:
        excess = (improved["action"].abs() - 1).clamp(min=0).norm(dim=-1)
        weight = weight + torch.softmax(-excess / 0.5, -1)
    assert_close(improved["weight"], weight)
    assert improved["action"].shape == (*batch, 5, 2)
    assert improved["state_action_value"].shape == improved["weight"].shape == (*batch, 5)


@BATCHES
@pytest.mark.parametrize("penalty", [False, True])
def test_one_action_that_takes_all_is_an_effective_sample_size_of_one(batch, penalty) -> None:
    e_step = make(penalty=penalty)
    e_step.temperature.assign(1e-6)
    policy = IndependentNormal(torch.zeros(*batch, 2), torch.full((*batch, 2), 2.0))
    readings = e_step.dual_terms(e_step(policy, first_number))[1]
    assert_close(readings["effective_sample_size"], torch.ones(batch))


@BATCHES
def test_the_reference_policy_is_written_down(batch) -> None:
    loc, scale = torch.randn(*batch, 2), torch.rand(*batch, 2) + 0.1
    improved = make()(IndependentNormal(loc, scale), first_number)
    assert torch.equal(improved["loc"], loc) and torch.equal(improved["scale"], scale)


@BATCHES
def test_a_squashed_policy_keeps_the_sample_before_squashing(batch) -> None:
    low, high = torch.tensor([-2.0, 0.0]), torch.tensor([1.0, 5.0])
    policy = TanhNormal(torch.zeros(*batch, 2), torch.full((*batch, 2), 3.0), low=low, high=high)
    improved = make(50)(policy, first_number)
    squashed = improved["base_action"].tanh() * (high - low) / 2 + (high + low) / 2
    assert_close(improved["action"], squashed, atol=1e-4, rtol=1e-4)
    assert (improved["action"] >= low).all() and (improved["action"] <= high).all()


def test_draws_follow_the_policy() -> None:
    torch.manual_seed(0)
    loc, scale = torch.tensor([[1.0, -3.0]]), torch.tensor([[0.5, 2.0]])
    action = make(20_000)(IndependentNormal(loc, scale), first_number)["action"]
    assert_close(action.mean(-2), loc, atol=0.05, rtol=0)
    assert_close(action.std(-2), scale, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "policy",
    [
        Independent(Beta(torch.ones(4, 2), torch.ones(4, 2)), 1),
        Independent(Normal(torch.zeros(4, 2), torch.ones(4, 2)), 1),
    ],
)
def test_any_distribution_is_sampled(policy) -> None:
    assert make()(policy, first_number)["action"].shape == (4, 5, 2)


def test_what_is_given_is_kept_and_nothing_scored() -> None:
    def must_not_be_called(action: torch.Tensor) -> torch.Tensor:
        raise AssertionError("values were given")

    given = TensorDict(action=torch.rand(4, 7, 2), state_action_value=torch.rand(4, 7))
    policy = IndependentNormal(torch.zeros(4, 2), torch.ones(4, 2))
    improved = make()(policy, must_not_be_called, given)
    assert torch.equal(improved["action"], given["action"])
    assert_close(improved["weight"], torch.softmax(given["state_action_value"] / 2.0, -1))
    assert "weight" not in given


def test_nothing_carries_gradient() -> None:
    loc = torch.zeros(4, 2, requires_grad=True)
    improved = make()(IndependentNormal(loc, loc.exp()), first_number)
    grown = [key for key, value in improved.items() if value.requires_grad and key == "weight"]
    assert not grown and not improved["action"].requires_grad


def test_no_samples_raise() -> None:
    with pytest.raises(ValueError, match="num_action_samples must be at least 1, got 0"):
        make(0)


if __name__ == "__main__":
    pytest.main([__file__])
