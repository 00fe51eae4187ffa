from __future__ import annotations

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, ParallelEnv, SerialEnv, TransformedEnv

from mpo_torchrl.trainer import EpisodeMemory, make_collector, make_env, make_loss
from mpo_torchrl.trainer.collector_state import collector_state, load_collector_state
from mpo_torchrl.trainer.seeding import keep_random_state, seed_everything
from tests.trainer.small import small_config


def collector_for(env="Pendulum-v1", **settings):
    config = small_config(env=env, learning_starts=10, **settings)
    seed_everything(config.seed)
    made = make_env(config.env, num_envs=config.num_envs)
    made.set_seed(config.seed)
    actor, _ = make_loss(made, config)
    return make_collector(made, actor, config)


def batches(collector, number):
    iterator = iter(collector)
    return torch.cat([next(iterator) for _ in range(number)], dim=-1)


def equal(one, other):
    keys = set(one.keys(True, True))
    return keys == set(other.keys(True, True)) and all(
        torch.equal(one.get(key), other.get(key)) for key in keys
    )


# Pendulum-v1 ends after 200 steps, MountainCar after 999; Hopper falls long before its limit.
@pytest.mark.parametrize(
    "env", ["Pendulum-v1", "Hopper-v5", "HalfCheetah-v5", "dm_control/walker-walk"]
)
@pytest.mark.parametrize("number", [3, 25])
def test_a_collector_goes_on_in_the_middle_of_an_episode(env, number):
    first, second = collector_for(env), collector_for(env)
    batches(first, number)
    load_collector_state(second, collector_state(first))
    with keep_random_state():
        expected = batches(first, 5)
    assert equal(expected, batches(second, 5))


def test_episodes_after_the_running_one_begin_where_they_would_have():
    first, second = collector_for(), collector_for()
    batches(first, 3)
    load_collector_state(second, collector_state(first))
    with keep_random_state():
        expected = batches(first, 45)  # 200 steps are an episode
    assert expected["next", "done"].sum() >= 2
    assert equal(expected, batches(second, 45))


def test_several_environments_come_back_each():
    first, second = collector_for(num_envs=2), collector_for(num_envs=2)
    batches(first, 3)
    load_collector_state(second, collector_state(first))
    with keep_random_state():
        expected = batches(first, 3)
    assert equal(expected, batches(second, 3))


def test_random_actions_go_on_where_they_were():
    first, second = (collector_for(steps_per_batch=5) for _ in range(2))
    batches(first, 1)  # 5 of 10 random steps
    load_collector_state(second, collector_state(first))
    with keep_random_state():
        expected = batches(first, 4)
    assert equal(expected, batches(second, 4))


def make_remembered(name="Pendulum-v1"):
    return TransformedEnv(GymWrapper(gymnasium.make(name)), EpisodeMemory())


@pytest.mark.parametrize(
    "kind",
    [SerialEnv, partial(ParallelEnv, mp_start_method="fork")],
    ids=["in this process", "in others"],
)
def test_environments_inside_a_batch_and_in_other_processes_come_back(kind):
    first, second = (
        Collector(kind(2, make_remembered), None, frames_per_batch=8, total_frames=-1)
        for _ in range(2)
    )
    batches(first, 3)
    load_collector_state(second, collector_state(first))
    with keep_random_state():
        expected = batches(first, 3)
    assert equal(expected.exclude("collector"), batches(second, 3).exclude("collector"))
    first.shutdown(), second.shutdown()


class Legacy:
    """What dm_control's environments look like from outside: a task with a RandomState."""

    def __init__(self):
        self.random = np.random.RandomState(5)


def test_the_generator_of_dm_control_comes_back():
    env = make_remembered()
    env.base_env._env = type("Simulator", (), {"task": Legacy()})()
    memory = env.transform
    memory._reset_env_preprocess(None)
    drawn = env.base_env._env.task.random.rand(3)
    state = memory.get_extra_state()["generator"]
    from mpo_torchrl.trainer.episode import _set_generator_state

    _set_generator_state(env.base_env._env.task.random, state)
    assert np.array_equal(env.base_env._env.task.random.rand(3), drawn)


class Drifting(gymnasium.Wrapper):
    """Pendulum that grows older with each reset: a state beyond its episodes."""

    age = 0

    def reset(self, **kwargs):
        Drifting.age += 1
        observation, info = super().reset(**kwargs)
        return observation, info

    def step(self, action):
        observation, *rest = super().step(action)
        return observation + np.float32(Drifting.age), *rest


@pytest.fixture
def drifting_env():
    gymnasium.register("mpo/Drifting-v0", lambda **_: Drifting(gymnasium.make("Pendulum-v1")))
    yield "mpo/Drifting-v0"
    del gymnasium.registry["mpo/Drifting-v0"]


def test_an_environment_that_does_not_come_back_begins_a_new_episode_and_says_so(
    drifting_env, monkeypatch
):
    first, second = collector_for(drifting_env), collector_for(drifting_env)
    batches(first, 3)
    said = []
    monkeypatch.setattr("torchrl.torchrl_logger.warning", lambda text, *_: said.append(text))
    load_collector_state(second, collector_state(first))
    assert ["did not come back to where it was" in text for text in said] == [True]
    batch = batches(second, 1)
    assert batch["episode_reward"][0] == 0  # a new episode
    assert torch.equal(batch["next", "observation"][:-1], batch["observation"][1:])


if __name__ == "__main__":
    pytest.main([__file__])
