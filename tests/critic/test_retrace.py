"""Retrace: its returns, where its traces end, and its place in MPOLoss."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.modules import IndependentNormal, ProbabilisticActor
from torchrl.objectives import ValueEstimators

from mpo_torchrl import DiscreteMPOLoss, MPOLoss
from mpo_torchrl.critic import CategoricalCritic, RetraceEstimator
from mpo_torchrl.functional import retrace_return
from mpo_torchrl.modules import make_critics, make_discrete_actor, make_discrete_critics
from tests.loss.builders import SPEC, O, make_actor, make_batch, make_critic, move_policy, seeded

GAMMA, LAMBDA = 0.9, 0.8
POLICIES = pytest.mark.parametrize("policy", ["gaussian", "tanh_normal", "beta"])


def make_loss(policy: str = "gaussian", lmbda: float = LAMBDA) -> MPOLoss:
    torch.manual_seed(0)
    loss = move_policy(MPOLoss(make_actor(policy), make_critic(), num_bootstrap_samples=3))
    return loss.make_value_estimator("retrace", gamma=GAMMA, lmbda=lmbda)


def make_sequences(*shape: int) -> TensorDict:
    batch = make_batch(*shape)
    batch["action"] = 0.05 + 0.8 * batch["action"].abs()  # inside of every policy's support
    batch["action_log_prob"] = torch.randn(*shape)
    batch["next", "done"] = batch["next", "done"] | batch["next", "terminated"]
    return batch


def targets(loss: MPOLoss, batch: TensorDict) -> Tensor:
    return loss._value_target(batch, None)


def by_hand(batch: TensorDict, next_value: Tensor, q_value: Tensor, log_prob: Tensor) -> Tensor:
    """One step at a time, from the end."""
    following = batch["next"]
    returns = torch.zeros_like(next_value)
    for t in reversed(range(next_value.shape[-1])):
        ahead = next_value[..., t]
        if t + 1 < next_value.shape[-1]:
            ratio = (log_prob - batch["action_log_prob"])[..., t + 1].exp()
            trace = LAMBDA * ratio.clamp(max=1) * ~following["done"][..., t, 0]
            ahead = ahead + trace * (returns[..., t + 1] - q_value[..., t + 1])
        live = ~following["terminated"][..., t, 0]
        returns[..., t] = following["reward"][..., t, 0] + GAMMA * live * ahead
    return returns


@POLICIES
@pytest.mark.parametrize("shape", [(5,), (2, 6), (2, 3, 4), (3, 1)], ids=str)
def test_targets_of_the_loss_are_its_returns(policy: str, shape: tuple, monkeypatch) -> None:
    loss, batch = make_loss(policy), make_sequences(*shape)
    with torch.no_grad():  # the target critics value actions, not those that are trained
        for parameter in loss.qvalue_network_params.parameters():
            parameter.add_(0.3)
    seen = {}
    estimate = RetraceEstimator.value_estimate

    def spy(self, tensordict, target_params=None, next_value=None, **kwargs):
        seen["next_value"] = next_value
        return estimate(self, tensordict, target_params, next_value, **kwargs)

    monkeypatch.setattr(RetraceEstimator, "value_estimate", spy)
    found = targets(loss, batch)
    values = [
        member_value(loss, member, batch) for member in loss.target_qvalue_network_params.unbind(0)
    ]
    with loss.target_actor_network_params.to_module(loss.actor_network):
        log_prob = loss.actor_network.get_dist(batch.copy()).log_prob(batch["action"])
    expected = by_hand(batch, seen["next_value"].squeeze(-1), torch.stack(values).amin(0), log_prob)
    torch.testing.assert_close(found, expected)


def member_value(loss: MPOLoss, member: TensorDict, batch: TensorDict) -> Tensor:
    with member.to_module(loss.qvalue_network):
        return loss.qvalue_network(batch.copy())["state_action_value"].squeeze(-1)


def test_without_traces_it_is_td0() -> None:
    loss, batch = make_loss(lmbda=0.0), make_sequences(3, 5)
    torch.manual_seed(1)
    found = targets(loss, batch)
    loss.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    torch.manual_seed(1)
    torch.testing.assert_close(found, targets(loss, batch))


def test_nothing_after_the_end_of_an_episode_has_a_say() -> None:
    loss, batch = make_loss(), make_sequences(1, 6)
    for flag in ("done", "terminated"):
        batch["next", flag][:] = False
    batch["next", "done"][:, 2] = True  # truncated
    torch.manual_seed(1)
    before = targets(loss, batch)
    batch["next", "reward"][:, 3:] += 100.0
    torch.manual_seed(1)
    after = targets(loss, batch)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (after[:, 3:] > before[:, 3:] + 50).all()


def make_steps(*shape: int, names: list | None = None, agents: int = 0) -> TensorDict:
    """What the estimator itself reads, of each agent if there are some."""
    entries = (*shape, agents) if agents else shape
    return TensorDict(
        action_log_prob=torch.randn(entries),
        policy_log_prob=torch.randn(entries),
        state_action_value=torch.randn(*entries, 1),
        next=TensorDict(
            reward=torch.randn(*entries, 1),
            done=torch.rand(*entries, 1) < 0.2,
            terminated=torch.rand(*entries, 1) < 0.1,
            batch_size=shape,
        ),
        batch_size=shape,
        names=names,
    )


def test_agents_have_returns_of_their_own() -> None:
    estimator, value = RetraceEstimator(GAMMA, LAMBDA), torch.randn(2, 5, 3, 1)
    steps = make_steps(2, 5, agents=3)
    together = estimator.value_estimate(steps, next_value=value)
    for agent in range(3):
        own = steps.apply(lambda entry, agent=agent: entry[:, :, agent])
        alone = estimator.value_estimate(own, next_value=value[:, :, agent])
        torch.testing.assert_close(together[:, :, agent], alone)


def test_time_is_the_dimension_of_that_name() -> None:
    estimator, value = RetraceEstimator(GAMMA, LAMBDA), torch.randn(5, 2, 1)
    steps = make_steps(5, 2, names=["time", None])
    found = estimator.value_estimate(steps, next_value=value)
    swapped = estimator.value_estimate(steps.transpose(0, 1), next_value=value.transpose(0, 1))
    torch.testing.assert_close(found, swapped.transpose(0, 1))


def test_a_batch_may_count_the_last_dimension_of_its_entries_as_its_own() -> None:
    estimator, value = RetraceEstimator(GAMMA, LAMBDA), torch.randn(2, 5, 1)
    steps = make_steps(2, 5)
    expected = estimator.value_estimate(steps, next_value=value)
    for key in ("action_log_prob", "policy_log_prob"):
        steps[key] = steps[key].unsqueeze(-1)
    steps["next"].batch_size = steps.batch_size = (2, 5, 1)
    torch.testing.assert_close(estimator.value_estimate(steps, next_value=value), expected)


@pytest.mark.parametrize("flag", ["done", "terminated"])
def test_flags_of_another_shape_are_refused(flag: str) -> None:
    steps = make_steps(4, 4)
    steps["next", flag] = steps["next", flag].squeeze(-1)
    with pytest.raises(ValueError, match=rf"'{flag}'\) must be of the shape .*\[4, 4, 1\], got"):
        RetraceEstimator(GAMMA).value_estimate(steps, next_value=torch.zeros(4, 4, 1))


def test_transitions_of_several_steps_are_refused() -> None:
    batch = make_sequences(2, 3)
    batch["steps_to_next_obs"] = torch.full((2, 3, 1), 3)
    with pytest.raises(ValueError, match="by 'steps_to_next_obs' the batch has several"):
        make_loss()(batch)


def test_a_policy_without_event_dimensions_has_one_ratio_a_step() -> None:
    def loss_of(distribution: type) -> MPOLoss:
        torch.manual_seed(0)
        actor = ProbabilisticActor(
            make_actor()[0], in_keys=["loc", "scale"], spec=SPEC, distribution_class=distribution
        )
        loss = move_policy(MPOLoss(actor, make_critic()))
        return loss.make_value_estimator("retrace", gamma=GAMMA, lmbda=LAMBDA)

    batch = make_sequences(2, 4)
    per_dimension, joint = loss_of(torch.distributions.Normal), loss_of(IndependentNormal)
    torch.manual_seed(1)
    expected = targets(joint, batch)
    batch["action_log_prob"] = torch.stack([batch["action_log_prob"], torch.zeros(2, 4)], -1)
    torch.manual_seed(1)
    torch.testing.assert_close(targets(per_dimension, batch), expected)


def test_the_log_probability_is_asked_for_under_its_key() -> None:
    loss, batch = make_loss(), make_sequences(2, 3)
    assert "action_log_prob" in loss.in_keys
    batch["old", "log_prob"] = batch.pop("action_log_prob")
    with pytest.raises(KeyError, match="the batch has no entry 'action_log_prob'"):
        loss(batch)
    loss.set_keys(log_prob=("old", "log_prob"))
    assert seeded(loss, batch)["loss_qvalue"].isfinite()


def test_no_gradient_reaches_a_policy_or_a_target() -> None:
    loss = make_loss()
    loss(make_sequences(2, 3))["loss_qvalue"].backward()
    assert all(p.grad is None for p in loss.actor_network_params.parameters())
    assert all(p.grad is not None for p in loss.qvalue_network_params.parameters())


def test_a_batch_is_left_as_it_was_but_for_its_priority() -> None:
    loss, batch = make_loss(), make_sequences(2, 3)
    before = batch.clone()
    loss(batch)
    assert set(batch.keys(True)) == {*before.keys(True), "td_error"}


def test_a_distributional_critic_refuses_it() -> None:
    critics = CategoricalCritic(
        make_critics(O, SPEC, num_cells=(8,), num_outputs=11), torch.linspace(-5, 5, 11)
    )
    with pytest.raises(ValueError, match="needs the value estimator TD0, got RetraceEstimator"):
        MPOLoss(make_actor(), critics).make_value_estimator("retrace")


def test_the_discrete_loss_names_what_it_supports() -> None:
    from torchrl.data import OneHot

    spec = OneHot(2)
    loss = DiscreteMPOLoss(make_discrete_actor(O, spec), make_discrete_critics(O, spec))
    with pytest.raises(NotImplementedError, match="'retrace' is not implemented"):
        loss.make_value_estimator("retrace")


def test_an_impossible_lambda_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lmbda must be between 0 and 1, got 1\.5"):
        make_loss(lmbda=1.5)


def test_returns_of_no_step_are_refused() -> None:
    none = torch.zeros(3, 0)
    with pytest.raises(ValueError, match=r"reward must be .* T at least 1, got \[3, 0\]"):
        retrace_return(none, none, none, none, none)


if __name__ == "__main__":
    pytest.main([__file__])
