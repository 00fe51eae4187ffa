from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from torchrl.envs import ParallelEnv, SerialEnv

from mpo_torchrl.trainer.environment import make_env, make_training_env
from mpo_torchrl.trainer.evaluation import make_evaluation_env
from mpo_torchrl.trainer.settings import SettingError
from tests.trainer.small import small_config

OBSERVATION = Box(-1, 1, (3,), np.float64)
ACTION = Box(np.array([-1, 0], np.float32), np.array([3, 0.5], np.float32))
UNBOUNDED = Box(-np.inf, np.inf, (2,))
SPACES = {
    "Sound": (OBSERVATION, ACTION),
    "DictObservation": (Dict(left=OBSERVATION, right=OBSERVATION), ACTION),
    "Pixels": (Box(0, 255, (8, 8, 3), np.uint8), ACTION),
    "Image": (Dict(observation=Box(-1, 1, (2, 2))), ACTION),
    "DictAction": (OBSERVATION, Dict(arm=ACTION)),
    "Unbounded": (OBSERVATION, UNBOUNDED),
    "Discrete": (OBSERVATION, Discrete(3)),
    "FromMinusOne": (OBSERVATION, Discrete(3, start=-1)),
    "SeveralDiscrete": (OBSERVATION, MultiDiscrete([2, 3])),
    "WholeNumbers": (OBSERVATION, Box(0, 3, (2,), np.int64)),
    "Goal": (Dict(observation=OBSERVATION, goal=OBSERVATION), ACTION),
    "Fixed": (OBSERVATION, Box(np.array([-1, 2], np.float32), np.array([1, 2], np.float32))),
}


class Recorder(gymnasium.Env):
    """Keeps the action it was given."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.action = action
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture(autouse=True)
def register():
    for name, spaces in SPACES.items():
        gymnasium.register(f"mpo/{name}-v0", lambda spaces=spaces, **_: Recorder(*spaces))
    yield
    for name in SPACES:
        del gymnasium.registry[f"mpo/{name}-v0"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NoSuch-v0", "env 'NoSuch-v0' cannot be made"),
        ("dm_control/walker-fly", "is not in dm_control; the nearest one is 'dm_control/walker-"),
        ("no_such_module:Thing-v0", "cannot be made: No module named 'no_such_module'"),
        ("CartPole-v1", r"must have continuous actions, got a discrete space \(OneHot\)"),
        ("mpo/Discrete-v0", "must have continuous actions, got a discrete space"),
        ("mpo/DictAction-v0", "must have a box as action space, got a dict"),
        ("mpo/SeveralDiscrete-v0", r"discrete space \(MultiOneHot\); put them into one discrete"),
        ("mpo/WholeNumbers-v0", r"discrete space \(BoundedDiscrete\); put them into one discrete"),
        ("mpo/Unbounded-v0", "must have bounded actions"),
        ("mpo/DictObservation-v0", r"must have the key 'observation', got \['left', 'right'\]"),
        ("mpo/Pixels-v0", r"must have the key 'observation', got \['pixels'\]"),
        ("mpo/Goal-v0", r"shows \['goal'\] beside 'observation', which would not be seen; flatten"),
        ("mpo/Fixed-v0", r"a choice in every dimension .*, got low \[-1.0, 2.0\] and high \[1.0"),
        ("mpo/Image-v0", r"must have a flat observation of real numbers, got shape \(2, 2\)"),
    ],
)
def test_an_unsuited_environment_is_named_with_the_reason(name, sentence):
    with pytest.raises(SettingError, match=sentence):
        make_env(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Pendulum-v1", "must have one discrete action for policy=categorical, got Bounded"),
        ("mpo/SeveralDiscrete-v0", "must have one discrete action .*, got MultiOneHot"),
        ("mpo/FromMinusOne-v0", "must number its actions from 0, got from -1"),
    ],
)
def test_unsuited_actions_of_a_categorical_policy_are_named(name, sentence):
    with pytest.raises(SettingError, match=sentence):
        make_env(name, discrete=True)


def test_an_action_space_without_bounds_is_mended_by_the_wrapper_that_is_named():
    with pytest.raises(SettingError, match=r"wrappers\.TransformAction"):
        make_env("mpo/Unbounded-v0")
    env = gymnasium.make("mpo/Unbounded-v0")
    bounded = gymnasium.wrappers.TransformAction(env, np.asarray, ACTION)
    gymnasium.register("mpo/Bounded-v0", lambda **_: bounded)
    assert make_env("mpo/Bounded-v0").action_spec.space.high.tolist() == [3, 0.5]
    del gymnasium.registry["mpo/Bounded-v0"]


def test_a_class_that_cannot_be_drawn_is_named(own):
    with pytest.raises(SettingError, match="cannot be drawn, it takes no render_mode"):
        make_env(own, render=True)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    def fail(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gymnasium, "make", fail)
    with pytest.raises(SettingError, match=r"not installed; pip install 'mpo_torchrl\[mujoco\]'"):
        make_env("HalfCheetah-v5")


def test_without_dm_control_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    monkeypatch.delattr("dm_control.suite", raising=False)
    with pytest.raises(SettingError, match=r"pip install 'mpo_torchrl\[dm_control\]'"):
        make_env("dm_control/walker-walk")


# -- where tasks come from ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "actions"),
    [
        ("InvertedDoublePendulum-v5", 9, 1),
        ("Hopper-v5", 11, 3),
        ("HalfCheetah-v5", 17, 6),
        ("Ant-v5", 105, 8),
        ("Humanoid-v5", 348, 17),
        ("dm_control/walker-walk", 24, 6),
        ("dm_control/ball_in_cup-catch", 8, 2),
        ("dm_control/stacker-stack_2", 49, 5),
    ],
)
@pytest.mark.parametrize("num_envs", [1, 2])
def test_tasks_are_flat_and_float32(name, size, actions, num_envs):
    env = make_env(name, num_envs=num_envs)
    rollout = env.rollout(3, break_when_any_done=False)
    env.close()
    batch = (3,) if num_envs == 1 else (2, 3)
    shapes = {"observation": size, "action": actions, "reward": 1, "terminated": 1, "truncated": 1}
    for key, length in shapes.items():
        entry = rollout[key] if key in rollout.keys() else rollout["next", key]
        assert entry.shape == (*batch, length), key
        assert entry.dtype in (torch.float32, torch.bool), key


def test_a_suite_observation_is_what_the_task_shows_side_by_side():
    env = make_env("dm_control/cartpole-balance")
    state = env.reset()
    task = env.base_env._env
    shown = task.task.get_observation(task.physics)
    expected = np.concatenate([np.atleast_1d(shown[key]) for key in sorted(shown)])
    np.testing.assert_allclose(state["observation"], expected, rtol=1e-6)


def test_the_time_limit_of_the_suite_truncates():
    env = make_env("dm_control/cartpole-balance", action_repeat=100)
    last = env.rollout(1000)["next"][-1]
    assert last["truncated"] and last["done"] and not last["terminated"]


def test_a_fall_terminates_and_a_time_limit_truncates():
    fallen = make_env("Hopper-v5").rollout(1000)["next"][-1]
    assert fallen["terminated"] and fallen["done"] and not fallen["truncated"]
    timed_out = make_env("Pendulum-v1").rollout(1000)["next"][-1]
    assert timed_out["truncated"] and timed_out["done"] and not timed_out["terminated"]


# -- one step of the agent ----------------------------------------------------------------


class Own(gymnasium.Env):
    """Ends in the fifth step; each step is rewarded with its number."""

    observation_space, action_space = OBSERVATION, ACTION

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(self.steps), self.steps == 5, False, {}


@pytest.fixture
def own():
    gymnasium.register("mpo/Own-v0", Own)
    yield "mpo/Own-v0"
    del gymnasium.registry["mpo/Own-v0"]


def test_an_action_is_held_until_the_episode_ends_and_its_rewards_are_summed(own):
    rollout = make_env(own, action_repeat=2).rollout(10)
    assert rollout["next", "reward"].flatten().tolist() == [3.0, 7.0, 5.0]
    assert rollout["next", "terminated"].flatten().tolist() == [False, False, True]


def test_frame_skip_is_the_simulator_s():
    env = make_env("HalfCheetah-v5", frame_skip=2)
    assert env.base_env._env.unwrapped.frame_skip == 2
    assert make_env("HalfCheetah-v5").base_env._env.unwrapped.frame_skip == 5


@pytest.mark.parametrize("name", ["Pendulum-v1", "dm_control/walker-walk"])
def test_frame_skip_is_refused_where_there_is_none(name):
    with pytest.raises(SettingError, match="frame_skip must be 0 for env .* got 2; action_repeat"):
        make_env(name, frame_skip=2)


def test_settings_shape_training_and_evaluation_alike():
    config = small_config(env="HalfCheetah-v5", frame_skip=2, action_repeat=3, num_envs=2)
    training, evaluation = make_training_env(config), make_evaluation_env(config)
    training.reset(), evaluation.reset()
    for env in (training.base_env._envs[0], evaluation._envs[0].base_env):
        assert env._env.unwrapped.frame_skip == 2
        assert env.wrapper_frame_skip == 3
    training.close(), evaluation.close()


def test_an_own_class_needs_no_keywords(own):
    assert make_env(own).rollout(2)["observation"].shape == (2, 3)


# -- several environments -----------------------------------------------------------------


def test_environments_in_processes_do_what_those_in_line_do():
    rollouts = []
    for processes in (False, True):
        config = small_config(num_envs=2, env_processes=processes)
        env = make_training_env(config)
        assert type(env.base_env) is (ParallelEnv if processes else SerialEnv)
        env.set_seed(0)
        torch.manual_seed(0)
        rollouts.append(env.rollout(5, break_when_any_done=False))
        env.close()
    assert (rollouts[0] == rollouts[1]).all()


def test_environments_start_apart():
    env = make_env("Pendulum-v1", num_envs=3)
    env.set_seed(0)
    assert len(env.reset()["observation"][:, 0].unique()) == 3


def test_an_environment_that_ends_starts_again_alone(own):
    env = make_env(own, num_envs=2)
    state = env.reset()
    env.base_env._envs[0]._env.unwrapped.steps = 3
    step, state = env.step_and_maybe_reset(env.rand_action(state))
    step, state = env.step_and_maybe_reset(env.rand_action(state))
    assert step["next", "done"].flatten().tolist() == [True, False]
    assert [one._env.unwrapped.steps for one in env.base_env._envs] == [0, 2]
    assert step["next", "episode_reward"].flatten().tolist() == [9.0, 3.0]
    step, _ = env.step_and_maybe_reset(env.rand_action(state))
    assert step["next", "episode_reward"].flatten().tolist() == [1.0, 6.0]


# -- what the agent sees ------------------------------------------------------------------


def test_everything_is_float32():
    rollout = make_env("mpo/Sound-v0").rollout(2)
    for key in ("observation", "action", ("next", "reward"), ("next", "observation")):
        assert rollout[key].dtype == torch.float32


def test_the_environment_sees_clipped_actions_and_replay_the_drawn_ones():
    env = make_env("mpo/Sound-v0")
    step = env.step(env.reset().set("action", torch.tensor([9.0, -9.0])))
    np.testing.assert_array_equal(env.base_env.unwrapped.action, [3.0, 0.0])
    torch.testing.assert_close(step["action"], torch.tensor([9.0, -9.0]))


def test_the_return_of_the_episode_is_summed():
    rollout = make_env("Pendulum-v1").rollout(5)
    torch.testing.assert_close(
        rollout["next", "episode_reward"][-1], rollout["next", "reward"].sum(0)
    )


if __name__ == "__main__":
    pytest.main([__file__])
