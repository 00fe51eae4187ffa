"""Sequences: from environments with short episodes to the losses, through the replay buffer."""

from __future__ import annotations

import math

import gymnasium
import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, OneHot

from mpo_torchrl.modules import make_actor, make_discrete_actor
from mpo_torchrl.trainer import (
    SettingError,
    make_collector,
    make_loss,
    make_replay_buffer,
    make_training_env,
    transitions,
)
from mpo_torchrl.trainer.policy import SequencePolicy
from mpo_torchrl.trainer.ray_collection import RayConfig
from mpo_torchrl.trainer.replay_rows import ReplayRowsAdapter
from mpo_torchrl.trainer.sequences import TRAJECTORY, SequenceReplayBuffer
from tests.trainer.small import small_config
from tests.trainer.test_n_step import Chain

LENGTH = 5
SETTINGS = {
    "env": "mpo/Chain-v0",
    "sequence_length": LENGTH,
    "batch_size": 500,
    "value_estimator": "retrace",
}


@pytest.fixture(autouse=True)
def register():
    gymnasium.register("mpo/Chain-v0", Chain, disable_env_checker=True, order_enforce=False)
    yield
    del gymnasium.registry["mpo/Chain-v0"]


def collect(steps: int = 300, **settings):
    """The loss and the replay buffer of a run on short episodes, after some steps."""
    config = small_config(**{**SETTINGS, **settings})
    torch.manual_seed(0)
    env = make_training_env(config)
    env.set_seed(0)
    actor, loss = make_loss(env, config)
    buffer, collector = make_replay_buffer(config), make_collector(env, actor, config)
    for batch in collector:
        data = transitions(batch, loss.in_keys, 0, 10**6)
        buffer.extend(data)
        if buffer.write_count * config.num_envs >= steps:
            break
    collector.shutdown()
    return loss, buffer


def numbered(buffer_size: int, *lengths: int) -> SequenceReplayBuffer:
    """A buffer with episodes of these lengths, whose steps are numbered through."""
    config = small_config(sequence_length=4, batch_size=4, buffer_size=buffer_size)
    buffer = make_replay_buffer(config)
    first = 0
    for episode, length in enumerate(lengths):
        number = torch.arange(first, first + length)
        steps = TensorDict(number=number, next={}, batch_size=length)
        steps["next", "done"] = (number == first + length - 1).unsqueeze(-1)
        steps[TRAJECTORY] = torch.full((length,), episode)
        buffer.extend(steps)
        first += length
    return buffer


@pytest.mark.parametrize("num_envs", [1, 2, 3])
@pytest.mark.parametrize("buffer_size", [500, 10_000])
def test_a_sequence_is_consecutive_steps_of_one_episode(num_envs, buffer_size):
    _, buffer = collect(800, num_envs=num_envs, buffer_size=buffer_size)
    batch = buffer.sample()
    assert batch.shape == (500 // LENGTH, LENGTH)
    counted = batch["collector", "mask"]
    follows = counted[:, 1:]
    left, entered = batch["next", "observation"][:, :-1], batch["observation"][:, 1:]
    assert follows.any()
    assert torch.equal(left[follows], entered[follows])
    _, episode, step = batch["observation"].unbind(-1)
    assert torch.equal(episode[:, 1:][follows], episode[:, :-1][follows])
    assert torch.equal(step[:, 1:][follows], step[:, :-1][follows] + 1)


def test_what_was_played_before_the_oldest_step_does_not_follow_the_newest():
    buffer = numbered(10, 6, 7)  # 3 .. 12 are left, 10 .. 12 in the places of 0 .. 2
    batch = buffer.sample(400)
    counted = batch["collector", "mask"][:, 1:]
    assert (batch["number"].diff(dim=1)[counted] == 1).all()
    assert set(batch["number"].unique().tolist()) == set(range(3, 13))


def test_all_sequences_are_as_likely_whatever_the_length_of_their_episode():
    torch.manual_seed(0)
    batch = numbered(100, 3, 4, 33).sample(4000)  # 1, 1 and 30 sequences
    count = batch["number"][:, 0].bincount(minlength=37)
    possible = torch.tensor([0, 3, *range(7, 37)])
    assert count.sum() == count[possible].sum() == 1000
    expected = 1000 / 32
    assert (count[possible] - expected).abs().max() < 4.5 * math.sqrt(expected)


def test_a_short_episode_is_filled_up_and_the_filling_masked():
    batch = numbered(100, 2).sample(4)
    assert batch["number"].tolist() == [[0, 1, 1, 1]]
    assert batch["collector", "mask"].tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("estimator", ["td0", "td_lambda", "retrace"])
def test_the_filling_has_no_say_in_the_losses(estimator):
    loss, buffer = collect(value_estimator=estimator)
    batch = buffer.sample()
    filling = ~batch["collector", "mask"]
    assert filling.any()
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        results.append(loss(batch.clone()))
        batch["observation"][filling] = torch.nan
        batch["next", "reward"][filling] = torch.nan
        batch["next", "done"][filling] ^= True
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0].keys())


def test_a_loss_reads_sequences_of_several_environments():
    loss, buffer = collect(num_envs=2)
    losses = loss(buffer.sample())
    assert losses["loss_qvalue"].isfinite() and losses["loss_qvalue"].shape == ()


def test_a_buffer_that_came_back_samples_the_same_sequences(tmp_path):
    _, buffer = collect(800, num_envs=2, buffer_size=500)
    ReplayRowsAdapter().save(buffer, tmp_path / "rows", args=(), kwargs={})
    _, other = collect(20, num_envs=2, buffer_size=500)
    ReplayRowsAdapter().load(
        other, tmp_path / "rows", map_location="cpu", tensor_load_kwargs={}, args=(), kwargs={}
    )
    samples = []
    for one in (buffer, other):
        torch.manual_seed(3)
        samples.append(one.sample())
    assert (samples[0] == samples[1]).all()


def test_at_first_actions_are_uniform_and_their_density_is_known():
    spec = Bounded(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 8.0]), (2,))
    policy = SequencePolicy(make_actor(3, spec, init_stddev=0.1), random_steps=1000)
    state = policy(TensorDict(observation=torch.zeros(1000, 3), batch_size=1000))
    assert state["action"].amin() < -1.9 and state["action"].amax() > 7.9
    torch.testing.assert_close(state["action_log_prob"], torch.full((1000,), -math.log(32)))


def test_random_numbered_actions_have_the_probability_of_one_among_them():
    policy = SequencePolicy(make_discrete_actor(3, OneHot(4)), random_steps=5)
    state = policy(TensorDict(observation=torch.zeros(5, 3), batch_size=5))
    torch.testing.assert_close(state["action_log_prob"], torch.full((5,), -math.log(4)))


@pytest.mark.parametrize("kind", ["gaussian", "tanh_normal"])
def test_later_the_log_probability_is_that_of_the_actor(kind):
    actor = make_actor(3, Bounded(-2.0, 2.0, (2,)), policy=kind)
    policy = SequencePolicy(actor, random_steps=5)
    state = TensorDict(observation=torch.randn(5, 3), batch_size=5)
    policy(state.copy())
    policy(state)
    expected = actor.get_dist(state.select("observation")).log_prob(state["action"])
    torch.testing.assert_close(state["action_log_prob"], expected)


def test_ray_refuses_sequences():
    with pytest.raises(SettingError, match="sequence_length must be 1 .* got 4"):
        RayConfig(sequence_length=4)


if __name__ == "__main__":
    pytest.main([__file__])
