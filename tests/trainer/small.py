"""Settings of a run that takes a moment."""

from __future__ import annotations

from mpo_torchrl.trainer import MPOConfig

SETTINGS = {
    "seed": 3,
    "total_timesteps": 60,
    "learning_starts": 40,
    "hidden": 16,
    "batch_size": 16,
    "eval_every": 30,
    "eval_episodes": 1,
    "progress_bar": False,
}


def small_config(**settings) -> MPOConfig:
    return MPOConfig(**{**SETTINGS, **settings})
