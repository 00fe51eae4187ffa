"""The folder of a run and its metrics.json."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase

from mpo_torchrl.trainer.config import RunConfig
from mpo_torchrl.trainer.progress import Progress

OBJECTIVE = "eval_return_mean_"
"""What a column begins with that holds the mean return of one of several rewards."""


def make_run_dir(config: RunConfig) -> Path:
    """The run's folder, made: ``run_dir``, or ``runs/<env>-<seed>-<time>`` where that is empty."""
    name = f"{config.env}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}".replace("/", "-")
    folder = Path(config.run_dir).expanduser() if config.run_dir else Path("runs") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def due(every: int, env_steps: int, batch: TensorDictBase) -> bool:
    """Whether a multiple of ``every`` was reached with the last batch of environment steps."""
    return env_steps % every < batch.numel()


def return_figures(progress: Progress) -> dict[str, float]:
    """Mean and stddev of the returns of the last evaluation; of several rewards each mean too."""
    returns = torch.tensor(progress.returns)
    return {
        "eval_return_mean": returns.mean().item(),
        "eval_return_stddev": returns.std(correction=0).item(),
        **{f"{OBJECTIVE}{name}": mean for name, mean in progress.objective_means.items()},
    }


def progress_row(progress: Progress, losses: TensorDictBase | None) -> dict[str, float]:
    """One row of the learning curve: an evaluation and what the last update reported.

    Args:
        progress (Progress): counters, time and the returns of the evaluation.
        losses (TensorDictBase, optional): output of the loss, if there was an update already.
    """
    return {
        "updates": progress.updates,
        "wall_seconds": round(progress.wall_seconds, 3),
        **return_figures(progress),
        **({} if losses is None else {key: value.item() for key, value in losses.items()}),
    }


def progress_line(env_steps: int, row: Mapping[str, float]) -> str:
    """One line of a run's output: an evaluation in words."""
    mean, stddev = row["eval_return_mean"], row["eval_return_stddev"]
    details = "".join(
        f"  {key.removeprefix(OBJECTIVE)} {row[key]:.2f}" for key in row if OBJECTIVE in key
    )
    details += "".join(
        f"  {key} {row[key]:.3g}" for key in ("temperature", "kl_mean", "kl_stddev") if key in row
    )
    return f"{env_steps:9,} steps  return {mean:9.2f} +- {stddev:.2f}{details}"


def final_metrics(
    config: RunConfig, progress: Progress, *, state_sha256: str, diagnostics: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of a finished run, ready for JSON.

    Args:
        config (RunConfig): the run's settings.
        progress (Progress): counters, time and the returns of the last evaluation.
        state_sha256 (str): digest of networks, targets, duals and optimizer.
        diagnostics (mapping): what the loss said of a batch after the last update.
    """
    figures = return_figures(progress)
    return {
        "env": config.env,
        "seed": config.seed,
        "env_steps": progress.env_steps,
        "updates": progress.updates,
        "wall_seconds": round(progress.wall_seconds, 3),
        "mean_reward": figures["eval_return_mean"],
        **figures,
        "eval_episodes": len(progress.returns),
        "state_sha256": state_sha256,
        **{name: float(value) for name, value in diagnostics.items()},
    }


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics`` as JSON in one step; a number that JSON lacks becomes ``null``."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n")
    os.replace(unfinished, path)
