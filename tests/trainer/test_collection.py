from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from mpo_torchrl.trainer.collection import (
    NonFiniteError,
    finished_returns,
    make_collector,
    make_replay_buffer,
    transitions,
)
from mpo_torchrl.trainer.environment import make_env
from mpo_torchrl.trainer.learning import make_loss
from tests.trainer.small import small_config

KEYS = ["observation", "action", ("next", "observation"), ("next", "reward"), ("next", "done")]


def made_batch(steps: int = 4) -> TensorDict:
    batch = TensorDict(
        observation=torch.randn(steps, 3), action=torch.randn(steps, 1), batch_size=steps
    )
    batch["next"] = TensorDict(
        observation=torch.randn(steps, 3),
        reward=torch.randn(steps, 1),
        done=torch.zeros(steps, 1, dtype=torch.bool),
        episode_reward=torch.arange(steps).float().unsqueeze(-1),
        batch_size=steps,
    )
    return batch


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("next", "reward"), float("nan")),
        (("next", "observation"), float("inf")),
        ("observation", float("-inf")),
        ("action", float("nan")),
    ],
)
def test_a_number_that_is_not_finite_is_named_with_its_step_and_key(key, value):
    batch = made_batch()
    batch[key][2] = value
    with pytest.raises(NonFiniteError) as caught:
        transitions(batch, KEYS, env_steps=100, limit=1000)
    assert "step 103 " in str(caught.value)
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize(("env", "time", "step"), [(0, 1, 103), (1, 1, 104), (1, 0, 102)])
def test_steps_of_environments_side_by_side_are_counted_across_them(env, time, step):
    batch = torch.stack([made_batch(), made_batch()])
    batch["next", "reward"][env, time] = float("nan")
    with pytest.raises(NonFiniteError, match=f"step {step} "):
        transitions(batch, KEYS, env_steps=100, limit=1000)


def test_only_what_learning_reads_is_kept():
    kept = transitions(made_batch(), KEYS, env_steps=0, limit=1000)
    assert set(kept.keys(include_nested=True, leaves_only=True)) == set(KEYS)


def test_a_batch_is_cut_where_the_run_ends():
    assert transitions(made_batch(4), KEYS, env_steps=8, limit=10).batch_size == (2,)


@pytest.mark.parametrize(("limit", "kept"), [(11, 2), (12, 2), (100, 4)])
def test_environments_side_by_side_end_together(limit, kept):
    batch = torch.stack([made_batch(4), made_batch(4)])
    assert transitions(batch, KEYS, env_steps=8, limit=limit).batch_size == (2, kept)


def test_finished_returns_are_those_of_the_episodes_that_ended():
    batch = made_batch()
    batch["next", "done"][[1, 3]] = True
    assert finished_returns(batch).tolist() == [1.0, 3.0]


def collected(learning_starts: int, policy: str = "gaussian", batches: int = 20) -> torch.Tensor:
    config = small_config(
        learning_starts=learning_starts, steps_per_batch=50, total_timesteps=5000, policy=policy
    )
    torch.manual_seed(0)
    env = make_env(config.env)
    actor, _ = make_loss(env, config)
    collector = make_collector(env, actor, config)
    actions = torch.cat(
        [batch["action"] for batch, _ in zip(collector, range(batches), strict=False)]
    )
    collector.shutdown()
    return actions


def test_random_actions_cover_the_full_range():
    actions = collected(learning_starts=1000)
    assert actions.abs().max() <= 2.0
    assert actions.min() < -1.95
    assert actions.max() > 1.95


@pytest.mark.parametrize(("policy", "reach"), [("gaussian", 2.0), ("tanh_normal", 1.6)])
def test_the_policy_explores_the_range_from_the_start(policy, reach):
    actions = collected(learning_starts=0, policy=policy, batches=10).clamp(-2, 2)
    assert actions.min() <= -reach
    assert actions.max() >= reach


def test_the_policy_acts_with_a_sample():
    assert collected(learning_starts=0, batches=1).std() > 0.5


def test_a_large_buffer_takes_memory_as_it_fills():
    buffer = make_replay_buffer(small_config(buffer_size=1_000_000))
    buffer.extend(made_batch())
    assert len(buffer) == 4


if __name__ == "__main__":
    pytest.main([__file__])
