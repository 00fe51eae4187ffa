"""From two environments to the critic's targets, through collector, replay buffer and loss."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from tensordict import TensorDict, unravel_key
from torch import Tensor, nn
from torchrl.modules import ValueOperator

from mpo_torchrl import MPOLoss
from mpo_torchrl.modules import make_actor
from mpo_torchrl.trainer import (
    MPOConfig,
    MPOTrainer,
    SettingError,
    make_collector,
    make_replay_buffer,
    make_training_env,
    transitions,
)
from mpo_torchrl.trainer.collection import NStepReturns
from tests.trainer.small import small_config

GAMMA = 0.9


class Chain(gymnasium.Env):
    """Episodes of 3 to 9 steps; odd ones are cut by a time limit, even ones terminate.

    The first number of an observation is its value, the second the episode, the third the step.
    """

    observation_space = Box(-np.inf, np.inf, (3,))
    action_space = Box(-1.0, 1.0, (1,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.t = int(self.np_random.integers(3, 10)), 0
        self.episode = float(self.np_random.integers(1000))
        return self.observation(), {}

    def observation(self):
        value = self.np_random.integers(100) + 0.5
        return np.array([value, self.episode, self.t], np.float32)

    def step(self, action):
        self.t += 1
        ended, odd = self.t >= self.length, self.length % 2 == 1
        reward = self.episode + self.t
        return self.observation(), reward, ended and not odd, ended and odd, {}


@pytest.fixture(autouse=True)
def register():
    gymnasium.register("mpo/Chain-v0", Chain, disable_env_checker=True, order_enforce=False)
    yield
    del gymnasium.registry["mpo/Chain-v0"]


class FirstNumber(nn.Module):
    """Says that the first number of a state is its value, and learns an offset."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return observation[..., :1] + self.offset


def first_number_loss(env) -> MPOLoss:
    actor = make_actor(3, env.action_spec_unbatched, num_cells=(4,))
    critic = ValueOperator(FirstNumber(), in_keys=["observation", "action"])
    loss = MPOLoss(actor, critic, num_qvalue_nets=1)
    with torch.no_grad():  # the online critic is below every target
        next(iter(loss.qvalue_network_params.parameters())).fill_(-1e6)
    return loss.make_value_estimator(gamma=GAMMA)


def chain_config(**settings) -> MPOConfig:
    return small_config(env="mpo/Chain-v0", gamma=GAMMA, **settings)


def collect(config: MPOConfig, num_batches: int):
    """The loss, the replay buffer it learns from, and all that was collected, ``[envs, T]``."""
    torch.manual_seed(0)
    env = make_training_env(config)
    env.set_seed(0)
    loss, buffer = first_number_loss(env), make_replay_buffer(config)
    collector = make_collector(env, loss.actor_network, config)
    raw, steps = [], 0
    for batch, _ in zip(collector, range(num_batches), strict=False):
        data = transitions(batch, loss.in_keys, steps, 10**6)
        raw.append(data.clone().reshape(config.num_envs, -1))
        buffer.extend(data)
        steps += data.numel()
    collector.shutdown()
    return loss, buffer, torch.cat(raw, dim=1)


def n_step_targets(raw: TensorDict, n: int) -> dict[tuple[float, float], float]:
    """Each step's target by episode and step, walked one step at a time in one environment."""
    targets = {}
    for steps in raw.unbind(0):
        for start in range(len(steps) - n):
            discount, target = 1.0, 0.0
            for step in steps[start : start + n].unbind(0):
                target += discount * step["next", "reward"].item()
                discount *= GAMMA
                if step["next", "done"]:
                    break
            if not step["next", "terminated"]:
                target += discount * step["next", "observation"][0].item()
            _, episode, t = steps[start]["observation"].tolist()
            targets[episode, t] = target
    return targets


@pytest.mark.parametrize("n_step", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_targets_of_a_run_are_its_n_step_returns(num_envs, n_step):
    config = chain_config(num_envs=num_envs, n_step=n_step, steps_per_batch=10)
    loss, buffer, raw = collect(config, num_batches=12)
    sample = buffer[:].reshape(-1)
    _, readings = loss.qvalue_loss(sample)
    found = (readings["q_value"] + readings["td_error"]).tolist()
    expected = n_step_targets(raw, n_step)
    assert len(found) >= len(expected) > 60
    seen = {}
    for (_, episode, t), target in zip(sample["observation"].tolist(), found, strict=True):
        seen[episode, t] = target
    for key, target in expected.items():
        assert seen[key] == pytest.approx(target, rel=1e-3, abs=0.2), key  # float32 near 1e6


def test_the_data_end_in_both_ways():
    _, _, raw = collect(chain_config(num_envs=2), num_batches=12)
    ended = raw["next", "done"]
    terminated = raw["next", "terminated"][ended].sum()
    assert 0 < terminated < ended.sum()


def test_sampled_transitions_are_flat_and_know_their_length():
    _, buffer, _ = collect(chain_config(num_envs=2, n_step=3), num_batches=12)
    sample = buffer.sample()
    assert sample.batch_size == (16,)
    steps = sample["steps_to_next_obs"].unique().tolist()
    assert steps == [1, 2, 3]


def test_steps_that_wait_survive_a_file(tmp_path):
    raw = collect(chain_config(num_envs=2), num_batches=4)[2]
    whole, first, second = (NStepReturns(3, GAMMA) for _ in range(3))
    expected = torch.cat([whole.inv(raw[:, :9].clone()), whole.inv(raw[:, 9:].clone())], -1)
    begun = first.inv(raw[:, :9].clone())
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found = torch.cat([begun, second.inv(raw[:, 9:].clone())], -1)
    assert (found == expected).all()


def test_steps_that_wait_are_given_up_when_the_next_batch_does_not_continue_them():
    raw = collect(chain_config(), num_batches=4)[2][0]
    going = (~raw["next", "done"]).squeeze(-1).nonzero().flatten()
    end = going[going > 5][0].item() + 1  # a batch that ends inside an episode
    transform = NStepReturns(3, GAMMA)
    transform.inv(raw[:end].clone())
    after = transform.inv(raw[end + 1 :].clone())
    assert (after["observation"][0] == raw["observation"][end + 1]).all()


@pytest.mark.parametrize("num_envs", [1, 2])
def test_the_trainer_learns_from_n_step_returns(num_envs):
    trainer = MPOTrainer.from_config(
        chain_config(n_step=4, num_envs=num_envs, total_timesteps=200, learning_starts=40)
    )
    metrics = trainer.train()
    assert (metrics["env_steps"], metrics["updates"]) == (200, 170)
    assert len(trainer.replay_buffer) == 200 - 4 * num_envs
    assert trainer.replay_buffer.sample()["steps_to_next_obs"].max() == 4


def test_the_first_update_waits_for_the_first_return():
    with pytest.raises(SettingError, match=r"learning_starts must be > n_step \* num_envs \(40\)"):
        small_config(n_step=40)


@pytest.mark.parametrize(
    ("key", "reward", "done"),
    [("state", "reward", "done"), (("agents", "observation"), "gain", "over")],
    ids=str,
)
def test_steps_of_an_own_pipeline_have_keys_and_shapes_of_their_own(key, reward, done):
    raw = collect(chain_config(num_envs=2), num_batches=4)[2]
    renamed = TensorDict(batch_size=raw.shape)
    pixels = raw["observation"][..., None, :].expand(*raw.shape, 4, 3)
    renamed[key], renamed["action"] = pixels, raw["action"]
    renamed[unravel_key(("next", key))] = raw["next", "observation"][..., None, :].expand(
        *raw.shape, 4, 3
    )
    renamed["next", reward], renamed["next", done] = raw["next", "reward"], raw["next", "done"]
    plain = NStepReturns(3, GAMMA)
    own = NStepReturns(3, GAMMA, reward_keys=[reward], done_key=done)
    for part in (slice(0, 9), slice(9, None)):
        expected, found = plain.inv(raw[:, part].clone()), own.inv(renamed[:, part].clone())
        assert (found["next", reward] == expected["next", "reward"]).all()
        assert (found[key][..., 0, :] == expected["observation"]).all()


if __name__ == "__main__":
    pytest.main([__file__])
