from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

from mpo_torchrl.trainer.config import SettingError
from mpo_torchrl.trainer.environment import make_env

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
        ("no_such_module:Thing-v0", "cannot be made: No module named 'no_such_module'"),
        ("CartPole-v1", r"must have continuous actions, got a discrete space \(OneHot\)"),
        ("mpo/Discrete-v0", "must have continuous actions, got a discrete space"),
        ("mpo/DictAction-v0", "must have a box as action space, got a dict"),
        ("mpo/Unbounded-v0", "must have bounded actions"),
        ("mpo/DictObservation-v0", r"must have the key 'observation', got \['left', 'right'\]"),
        ("mpo/Pixels-v0", r"must have the key 'observation', got \['pixels'\]"),
        ("mpo/Image-v0", r"must have a flat observation of real numbers, got shape \(2, 2\)"),
    ],
)
def test_an_unsuited_environment_is_named_with_the_reason(name, sentence):
    with pytest.raises(SettingError, match=sentence):
        make_env(name)


def test_a_missing_package_is_named(monkeypatch):
    def fail(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gymnasium, "make", fail)
    with pytest.raises(
        SettingError, match=r"MuJoCo is not installed; pip install 'mpo_torchrl\[re"
    ):
        make_env("HalfCheetah-v5")


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
