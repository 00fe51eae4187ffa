"""Minari data sets of a moment."""

from __future__ import annotations

import gymnasium

from mpo_torchrl.trainer.dataset import record_dataset


def record_random(name: str, env_name: str = "Pendulum-v1", episodes: int = 2, **options) -> list:
    """Episodes of random actions; their returns."""
    env = gymnasium.make(env_name, **options)
    env.action_space.seed(0)
    returns = record_dataset(name, env, lambda _: env.action_space.sample(), range(episodes))
    env.close()
    return returns.tolist()
