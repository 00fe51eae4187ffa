from __future__ import annotations

import importlib.util
import socket

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.data import Bounded

from mpo_torchrl.trainer import ray_collection
from mpo_torchrl.trainer.config import MPOConfig
from mpo_torchrl.trainer.ray_collection import (
    RayConfig,
    WarmUpPolicy,
    connect,
    make_shared_replay_buffer,
)
from mpo_torchrl.trainer.settings import SettingError, describe_settings


def batch_of(collector: int, first: float) -> TensorDict:
    """Five steps ``[5]`` of an episode that does not end; rewards count on from ``first``."""
    rewards = torch.arange(first, first + 5)[:, None]
    flags = {"done": torch.zeros(5, 1, dtype=bool), "terminated": torch.zeros(5, 1, dtype=bool)}
    return TensorDict(
        {
            "observation": rewards,
            "action": rewards,
            "next": {"observation": rewards + 1, "reward": rewards, **flags},
            "collector": torch.full((5, 1), collector),
        },
        batch_size=[5],
    )


@pytest.mark.parametrize("n_step", [1, 2])
def test_n_step_returns_of_two_collectors_do_not_mix(n_step):
    config = RayConfig(num_collectors=2, n_step=n_step, gamma=1.0)
    buffer = make_shared_replay_buffer(config)
    for first in (0.0, 5.0):
        for collector in (0, 1):
            buffer.extend(batch_of(collector, 100 * collector + first))
    steps = buffer[:]
    start = steps["observation"]
    assert len(steps) == 2 * (10 if n_step == 1 else 8)
    expected = start if n_step == 1 else 2 * start + 1
    torch.testing.assert_close(steps["next", "reward"], expected)
    assert "collector" not in steps.keys()


@pytest.fixture
def policy():
    linear = nn.Linear(3, 1)
    nn.init.zeros_(linear.weight)
    nn.init.constant_(linear.bias, 0.5)
    return WarmUpPolicy(
        TensorDictModule(linear, ["observation"], ["action"]), Bounded(-2.0, 2.0, (1,))
    )


def test_warm_up_ends_in_a_copy_that_gets_the_weights(policy):
    state = TensorDict(observation=torch.zeros(3))
    assert policy(state)["action"] != 0.5
    weights = TensorDict.from_module(policy).data.clone()
    policy.end_warm_up()
    assert policy(state)["action"] == 0.5
    TensorDict.from_module(policy).data.update_(weights)
    assert policy(state)["action"] != 0.5


def test_ray_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(ray_collection, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"needs ray: pip install 'mpo_torchrl\[ray\]'"):
        connect(RayConfig())


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nonsense"])
def test_an_address_without_a_cluster_is_refused_at_once(address, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    address = address.format(port=closed_port())
    with pytest.raises(SettingError, match=f"got '{address}' where none answers; 'ray start"):
        connect(RayConfig(ray_address=address))


def test_the_steps_that_wait_are_those_of_all_collectors():
    with pytest.raises(SettingError, match=r"learning_starts must be > .* \(20\)"):
        RayConfig(num_collectors=4, n_step=5, learning_starts=20)


def test_settings_of_collection_stand_beside_those_of_any_run():
    table = describe_settings(RayConfig)
    assert "num_collectors" in table and "learning_rate" in table
    assert "num_collectors" not in describe_settings(MPOConfig)


def test_an_unknown_name_brings_the_nearest_setting_of_collection():
    with pytest.raises(SettingError, match="the nearest one is 'num_collectors'"):
        RayConfig.from_mapping({"num_colectors": 3})


if __name__ == "__main__":
    pytest.main([__file__])
