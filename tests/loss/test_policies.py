"""Policies: what is drawn, in which range, and what each kind is fitted with."""

from __future__ import annotations

import sys

import pytest
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded, Unbounded
from torchrl.envs.utils import ExplorationType
from torchrl.modules import IndependentNormal, ProbabilisticActor, TanhNormal

from mpo_torchrl import MPOLoss
from mpo_torchrl.m_step import DistributionMStep, GaussianMStep
from tests.loss.builders import (
    DUALS,
    POLICIES,
    SPEC,
    A,
    O,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    move_policy,
    parameter_groups,
    seeded,
    without_spec,
)

LOW, HIGH = torch.tensor([-2.0, 0.5]), torch.tensor([2.0, 8.0])
ASYMMETRIC = Bounded(LOW, HIGH)


def wide(loss: MPOLoss, log_scale: float = 3.0) -> MPOLoss:
    """Makes the policy so wide that its draws reach both ends of its range."""
    for params in (loss.actor_network_params, loss.target_actor_network_params):
        bias = params["module", "0", "module", "0", "3", "bias"]
        bias.data[A:] = log_scale
    return loss


def drawn(loss: MPOLoss, num_states: int = 50) -> tuple[Tensor, Tensor]:
    improved = loss.e_step(make_batch(num_states))["e_step"]
    return improved["action"], improved.get("base_action", None)


# -- range --------------------------------------------------------------------------------


def test_draws_of_a_squashed_policy_fill_their_range_and_stay_inside() -> None:
    actor = make_actor("tanh_normal", spec=ASYMMETRIC)
    loss = wide(MPOLoss(actor, make_critic(), num_action_samples=50))
    action, base = drawn(loss)
    assert (action >= LOW).all() and (action <= HIGH).all()
    reach = 0.02 * (HIGH - LOW)
    assert (action.amin((0, 1)) < LOW + reach).all() and (action.amax((0, 1)) > HIGH - reach).all()
    middle, half = (LOW + HIGH) / 2, (HIGH - LOW) / 2
    torch.testing.assert_close(action, middle + half * base.tanh(), atol=1e-4, rtol=1e-4)


def test_draws_that_saturate_keep_their_place_before_the_squashing() -> None:
    loss = wide(make_loss("tanh_normal", num_action_samples=50), log_scale=30.0)
    action, base = drawn(loss)
    assert (action.abs() > 0.9999).any()
    assert base.abs().max() > 20.0  # inverting tanh would give 8.7 at most
    assert loss(make_batch(4))["loss_actor"].isfinite()


def test_an_unsquashed_policy_may_leave_its_range_and_pays_for_it() -> None:
    loss = wide(make_loss("gaussian", num_action_samples=50))
    action, base = drawn(loss)
    assert base is None and (action.abs() > 1.0).any()
    weight = loss.e_step(make_batch(4))["e_step", "weight"]
    torch.testing.assert_close(weight.sum(-1), torch.full((4,), 2.0))


def test_the_penalty_is_the_distance_to_bounds_that_are_not_symmetric() -> None:
    loss = MPOLoss(make_actor("gaussian", spec=ASYMMETRIC), make_critic())
    action = torch.tensor([[3.0, 4.0], [-2.0, 0.0], [5.0, 12.0], [0.0, 8.0]])
    cost = loss.penalty_temperature.cost(action)
    torch.testing.assert_close(cost, torch.tensor([-1.0, -0.5, -5.0, 0.0]))


def test_pendulum_s_whole_torque_is_used() -> None:
    pendulum = Bounded(-2.0, 2.0, shape=(1,))
    for policy in ("gaussian", "tanh_normal"):
        actor = make_actor(policy, spec=pendulum)
        critic = make_critic(action_size=1)
        loss = MPOLoss(actor, critic, num_action_samples=500)
        batch = make_batch(50, action_size=1)
        action = loss.e_step(batch)["e_step", "action"]
        assert action.min() < -1.5 and action.max() > 1.5, policy


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_are_random_although_losses_run_deterministically(policy: str) -> None:
    loss = make_loss(policy)
    assert loss.deterministic_sampling_mode == ExplorationType.DETERMINISTIC
    batch = make_batch(4)
    loss(batch)
    losses = [loss(batch)["loss_actor"].item() for _ in range(3)]
    assert len(set(losses)) == 3
    action = loss.e_step(batch)["e_step", "action"]
    assert action.std(1).min() > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_the_user_s_random_numbers_decide_the_draws(policy: str) -> None:
    loss, batch = make_loss(policy), make_batch(4)
    first = seeded(loss.e_step, batch.clone())["e_step", "action"]
    assert (first == seeded(loss.e_step, batch.clone())["e_step", "action"]).all()
    assert (first != seeded(loss.e_step, batch.clone(), seed=2)["e_step", "action"]).any()


@pytest.mark.parametrize("num_samples", [1, 7])
@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_draws_come_after_the_batch_dimensions(policy: str, shape: tuple, num_samples: int) -> None:
    loss = make_loss(policy, num_action_samples=num_samples)
    improved = loss.e_step(make_batch(*shape))["e_step"]
    assert improved["action"].shape == (*shape, num_samples, A)
    for key in ("state_action_value", "weight"):
        assert improved[key].shape == (*shape, num_samples)
    if policy in ("gaussian", "tanh_normal"):
        assert improved["loc"].shape == improved["scale"].shape == (*shape, A)
    assert ("base_action" in improved.keys()) == (policy == "tanh_normal")


# -- kind ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_has_the_multipliers_of_its_kind(policy: str) -> None:
    loss = make_loss(policy)
    assert list(parameter_groups(loss)) == ["actor", "qvalue", *DUALS[policy]]
    decoupled = policy in ("gaussian", "tanh_normal")
    assert type(loss._m_step) is (GaussianMStep if decoupled else DistributionMStep)


@pytest.mark.parametrize(("per_dimension", "shape"), [(True, (A,)), (False, ())])
def test_bounds_hold_per_dimension_or_for_their_sum(per_dimension: bool, shape: tuple) -> None:
    loss = move_policy(make_loss("gaussian", per_dim_constraining=per_dimension))
    assert loss.alpha_mean.raw.shape == loss.alpha_stddev.raw.shape == shape
    _, readings = loss.actor_loss(make_batch(4))
    assert readings["kl_mean"].shape == (4, *shape)


def test_one_bound_on_the_sum_sees_the_sum() -> None:
    apart, summed = (
        seeded(lambda p=p: move_policy(make_loss("gaussian", per_dim_constraining=p)))
        for p in (True, False)
    )
    batch = make_batch(4)
    kl = apart.actor_loss(batch)[1]["kl_mean"].sum(-1)
    torch.testing.assert_close(summed.actor_loss(batch)[1]["kl_mean"], kl)


def test_no_penalty_without_its_bound() -> None:
    loss = make_loss("gaussian", epsilon_penalty=None)
    assert "penalty_temperature" not in loss.out_keys
    weight = loss.e_step(make_batch(4))["e_step", "weight"]
    torch.testing.assert_close(weight.sum(-1), torch.ones(4))


def test_an_unbounded_action_space_goes_without_penalty() -> None:
    actor = make_actor(spec=Unbounded(shape=(A,)))
    loss = MPOLoss(actor, make_critic(), epsilon_penalty=None)
    assert loss(make_batch(4))["loss_actor"].isfinite()


@pytest.mark.parametrize("limits", [{"low": -torch.ones(A)}, {"high": torch.ones(A)}], ids=list)
def test_a_squashed_policy_tells_its_size_by_its_bounds(limits: dict) -> None:
    actor = without_spec(make_actor("tanh_normal"), distribution_kwargs=limits)
    assert MPOLoss(actor, make_critic()).alpha_mean.raw.shape == (A,)


class OwnNormal(IndependentNormal):
    """Takes variances, which are the stddevs where both are 1."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__(loc, scale.sqrt())


@pytest.mark.parametrize(
    ("distribution", "kwargs"),
    [
        (OwnNormal, {}),
        (TanhNormal, {"tanh_loc": True, "upscale": 0.1}),
        (TanhNormal, {"low": -3.0, "high": 5.0}),
        (TanhNormal, {"safe_tanh": False}),
        (IndependentNormal, {"tanh_loc": True}),
        (IndependentNormal, {"event_dim": 1}),
    ],
    ids=str,
)
def test_mean_and_stddev_are_those_of_the_distribution_itself(distribution, kwargs: dict) -> None:
    # tanh_loc moves the mean of a TanhNormal, and does nothing to an IndependentNormal.
    actor = make_actor("tanh_normal" if distribution is TanhNormal else "gaussian")
    actor = without_spec(actor, distribution_class=distribution, distribution_kwargs=kwargs)
    loss = MPOLoss(actor, make_critic(), action_spec=SPEC, num_action_samples=3)
    batch = make_batch(4)
    improved = loss.e_step(batch.clone())["e_step"]
    with torch.no_grad():
        policy = actor.get_dist(batch.clone())
    base = policy.root_dist if distribution is TanhNormal else policy.base_dist
    torch.testing.assert_close(improved["loc"], base.loc)
    torch.testing.assert_close(improved["scale"], base.scale)
    assert loss(batch)["kl_mean"] == 0


class ScaleFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(O, 2 * A), NormalParamExtractor())

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        loc, scale = self.body(observation)
        return scale, loc


@pytest.mark.parametrize("in_keys", [["loc", "scale"], ["scale", "loc"]], ids=str)
def test_a_network_may_write_the_stddev_before_the_mean(in_keys: list[str]) -> None:
    actor = ProbabilisticActor(
        TensorDictModule(ScaleFirst(), ["observation"], ["scale", "loc"]),
        in_keys=in_keys,
        distribution_class=IndependentNormal,
        spec=SPEC,
    )
    batch = make_batch(4)
    improved = MPOLoss(actor, make_critic()).e_step(batch.clone())["e_step"]
    with torch.no_grad():
        loc, scale = actor[0].module.body(batch["observation"])
    torch.testing.assert_close(improved["loc"], loc)
    torch.testing.assert_close(improved["scale"], scale)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
