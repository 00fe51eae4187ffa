from __future__ import annotations

import math

import pytest
import torch
from tensordict import TensorDict
from torch.distributions import Beta, Independent
from torch.testing import assert_close
from torchrl.modules import IndependentNormal, TanhNormal

from mpo_torchrl.dual import ExactTemperature, FixedTemperature, Temperature
from mpo_torchrl.e_step import BehaviourEStep

BATCHES = pytest.mark.parametrize("batch", [(4,), (2, 3)], ids=str)


def first_number(action: torch.Tensor) -> torch.Tensor:
    return action[..., 0]


def gaussian(*batch: int) -> IndependentNormal:
    return IndependentNormal(torch.zeros(*batch, 2), torch.full((*batch, 2), 0.5))


def squashed(*batch: int) -> TanhNormal:
    low, high = torch.tensor([-2.0, 0.0]), torch.tensor([1.0, 5.0])
    return TanhNormal(torch.zeros(*batch, 2), torch.ones(*batch, 2), low=low, high=high)


@BATCHES
def test_the_action_to_fit_is_the_one_taken(batch) -> None:
    taken = torch.rand(*batch, 2)
    improved = BehaviourEStep(FixedTemperature(1.0))(gaussian(*batch), first_number, taken=taken)
    assert torch.equal(improved["action"], taken.unsqueeze(-2))
    assert improved["weight"].shape == (*batch, 1)
    assert improved["state_action_value"].shape == (*batch, 5)
    assert improved["advantage"].shape == improved["temperature"].shape == batch


def test_advantages_and_weights_are_those_worked_by_hand() -> None:
    # One taken action and two of the policy a state: A = 2 - 1 = 1 and -1 - 0 = -1.
    values = torch.tensor([[2.0, 0.0, 2.0], [-1.0, 0.5, -0.5]])
    given = TensorDict(state_action_value=values)
    e_step = BehaviourEStep(FixedTemperature(2.0), num_action_samples=2)
    improved = e_step(gaussian(2), first_number, given, taken=torch.zeros(2, 2))
    assert_close(improved["advantage"], torch.tensor([1.0, -1.0]))
    mean = (math.exp(0.5) + math.exp(-0.5)) / 2
    expected = torch.tensor([[math.exp(0.5)], [math.exp(-0.5)]]) / mean
    assert_close(improved["weight"], expected)
    size = expected.sum().square() / expected.square().sum()
    readings = e_step.dual_terms(improved)[1]
    assert_close(readings["effective_sample_size"], size.expand(2))


def test_weights_may_be_clipped_to_their_mean() -> None:
    given = TensorDict(state_action_value=torch.tensor([[2.0, 1.0], [-1.0, 0.0]]))
    e_step = BehaviourEStep(FixedTemperature(2.0), num_action_samples=1, max_weight=1.0)
    weight = e_step(gaussian(2), first_number, given, taken=torch.zeros(2, 2))["weight"]
    assert_close(weight, torch.tensor([[1.0], [2 / (math.e + 1)]]))


@BATCHES
def test_equal_values_make_equal_weights(batch) -> None:
    e_step = BehaviourEStep(Temperature(0.1, 1e-3))
    improved = e_step(
        gaussian(*batch), lambda a: torch.full(a.shape[:-1], -700.0), taken=torch.rand(*batch, 2)
    )
    assert_close(improved["weight"], torch.ones(*batch, 1))


def test_a_constant_added_to_the_values_changes_nothing() -> None:
    def weights(constant: float) -> torch.Tensor:
        torch.manual_seed(1)
        return BehaviourEStep(FixedTemperature(0.2))(
            gaussian(8), lambda a: a[..., 0] + constant, taken=torch.rand(8, 2)
        )["weight"]

    assert_close(weights(64.0), weights(0.0), atol=1e-3, rtol=1e-3)


def test_what_is_added_in_one_state_changes_nothing_there() -> None:
    per_state = 8 * torch.arange(8.0).unsqueeze(-1)
    taken = torch.rand(8, 2)

    def weights(offset: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        e_step = BehaviourEStep(FixedTemperature(0.2))
        return e_step(gaussian(8), lambda a: a[..., 0] + offset, taken=taken)["weight"]

    assert_close(weights(per_state), weights(torch.zeros(8, 1)), atol=1e-3, rtol=1e-3)


@BATCHES
def test_a_squashed_policy_gets_the_action_before_the_squashing(batch) -> None:
    policy = squashed(*batch)
    taken = policy.sample()
    improved = BehaviourEStep(FixedTemperature(1.0))(policy, first_number, taken=taken)
    again = (improved["base_action"].squeeze(-2).tanh() + 1) / 2
    low, high = torch.tensor([-2.0, 0.0]), torch.tensor([1.0, 5.0])
    inside = (improved["base_action"].abs() < 3).squeeze(-2)
    assert inside.any()
    assert_close((low + again * (high - low))[inside], taken[inside], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beyond", [0.0, 0.5])
def test_an_action_on_the_bound_or_beyond_it_is_moved_inside(beyond: float) -> None:
    low, high = torch.tensor([-2.0, 0.0]) - beyond, torch.tensor([1.0, 5.0]) + beyond
    taken = torch.stack([low, high])
    improved = BehaviourEStep(FixedTemperature(1.0))(squashed(2), first_number, taken=taken)
    assert_close(improved["base_action"].squeeze(-2), torch.tensor([[-3.0, -3.0], [3.0, 3.0]]))
    assert torch.equal(improved["action"].squeeze(-2), taken)  # what the critic judges is kept


@BATCHES
@pytest.mark.parametrize(
    "temperature", [Temperature(0.3, 1.0), ExactTemperature(0.3), FixedTemperature(1.0)]
)
def test_what_is_masked_is_as_if_it_were_not_there(batch, temperature) -> None:
    taken, values = torch.rand(*batch, 2), torch.randn(*batch, 3)
    mask = torch.arange(math.prod(batch)).reshape(batch) % 3 != 0
    e_step = BehaviourEStep(temperature)
    hidden = TensorDict(state_action_value=values.masked_fill(~mask.unsqueeze(-1), 1e4))
    seen = TensorDict(state_action_value=values[mask])
    masked = e_step(gaussian(*batch), first_number, hidden, mask, taken)
    alone = e_step(gaussian(int(mask.sum())), first_number, seen, taken=taken[mask])
    assert not masked["weight"][~mask].any()
    assert_close(masked["weight"][mask], alone["weight"])
    loss, readings = e_step.dual_terms(masked)
    loss_alone, readings_alone = e_step.dual_terms(alone)
    assert_close(loss[mask], loss_alone)
    for name in ("kl_e_step", "effective_sample_size"):
        assert_close(readings[name][mask], readings_alone[name])


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_an_exact_temperature_spends_its_bound_over_the_batch(epsilon: float) -> None:
    e_step = BehaviourEStep(ExactTemperature(epsilon), max_weight=64.0)
    improved = e_step(gaussian(64), first_number, taken=torch.randn(64, 2))
    _, readings = e_step.dual_terms(improved)
    assert_close(readings["kl_e_step"], torch.full((64,), epsilon), atol=1e-4, rtol=0)


def test_the_slope_of_the_dual_is_its_bound_minus_the_kl_spent() -> None:
    temperature = Temperature(0.3, 0.7, parametrization="exp")
    e_step = BehaviourEStep(temperature)
    improved = e_step(gaussian(16), first_number, taken=torch.randn(16, 2))
    loss, readings = e_step.dual_terms(improved)
    loss.mean().backward()
    slope = temperature.raw.grad / 0.7  # of exp(raw) in raw
    assert_close(slope, 0.3 - readings["kl_e_step"][0], atol=1e-4, rtol=1e-4)


def test_what_is_given_is_kept_and_nothing_scored() -> None:
    def must_not_be_called(action: torch.Tensor) -> torch.Tensor:
        raise AssertionError("advantages were given")

    given = TensorDict(advantage=torch.randn(4), state_action_value=torch.zeros(4, 5))
    e_step = BehaviourEStep(FixedTemperature(1.0))
    improved = e_step(gaussian(4), must_not_be_called, given, taken=torch.rand(4, 2))
    assert torch.equal(improved["advantage"], given["advantage"]) and "weight" not in given


def test_a_given_temperature_decides_the_weights() -> None:
    given = TensorDict(advantage=torch.randn(4), state_action_value=torch.zeros(4, 5))
    given["temperature"] = torch.full((4,), 0.3)
    weights = [
        BehaviourEStep(FixedTemperature(own))(
            gaussian(4), first_number, entries, taken=torch.zeros(4, 2)
        )["weight"]
        for own, entries in ((1.0, given), (0.3, given.exclude("temperature")))
    ]
    assert_close(*weights)


def test_nothing_of_it_carries_a_gradient() -> None:
    scale = torch.ones((), requires_grad=True)
    improved = BehaviourEStep(FixedTemperature(1.0))(
        gaussian(4), lambda action: scale * action[..., 0], taken=torch.rand(4, 2)
    )
    assert not any(entry.requires_grad for entry in improved.values())


@pytest.mark.parametrize("taken", [None, torch.zeros(4, 3), torch.zeros(3, 2)])
def test_actions_that_are_not_the_policys_are_refused(taken) -> None:
    with pytest.raises(ValueError, match=r"must be \[\*B, A\] as the policy's, \[4, 2\], got"):
        BehaviourEStep(FixedTemperature(1.0))(gaussian(4), first_number, taken=taken)


def test_a_policy_that_is_no_gaussian_is_refused() -> None:
    policy = Independent(Beta(torch.ones(4, 2), torch.ones(4, 2)), 1)
    with pytest.raises(TypeError, match="BehaviourEStep needs a Gaussian policy"):
        BehaviourEStep(FixedTemperature(1.0))(policy, first_number, taken=torch.rand(4, 2))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_action_samples": 0}, "num_action_samples must be at least 1, got 0"),
        ({"max_weight": 0.9}, "max_weight must be at least 1, got 0.9"),
        ({"max_base_action": 0.0}, "max_base_action must be positive, got 0.0"),
    ],
)
def test_arguments_out_of_range_are_refused(settings, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        BehaviourEStep(FixedTemperature(1.0), **settings)


if __name__ == "__main__":
    pytest.main([__file__])
