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


def same_figures(metrics: dict, others: dict) -> bool:
    """Whether two runs ended with the same figures, apart from the time they took."""
    return {**metrics, "wall_seconds": 0} == {**others, "wall_seconds": 0}
