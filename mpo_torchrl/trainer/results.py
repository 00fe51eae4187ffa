"""The folder of a run and its metrics.json."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase

from mpo_torchrl.trainer.config import RunConfig
from mpo_torchrl.trainer.files import replace_text
from mpo_torchrl.trainer.progress import Progress
from mpo_torchrl.trainer.settings import SettingError

OBJECTIVE = "eval_return_mean_"
"""What a column begins with that holds the mean return of one of several rewards."""


def make_run_dir(config: RunConfig) -> Path:
    """The run's folder, made: ``run_dir``, or ``runs/<env>-<seed>-<time>`` where that is empty.

    Args:
        config (RunConfig): the run's settings.

    Returns:
        Path: the folder; one that is named may have been there before.

    Raises:
        SettingError: if ``run_dir`` is a file.

    Examples:
        >>> import tempfile
        >>> from mpo_torchrl.trainer import MPOConfig
        >>> make_run_dir(MPOConfig(run_dir=f"{tempfile.mkdtemp()}/cheetah")).name
        'cheetah'
    """
    if config.run_dir:
        folder = Path(config.run_dir).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise SettingError(
                f"run_dir must be a folder, got the file {str(folder)!r}."
            ) from error
        return folder
    name = f"{config.env}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}".replace("/", "-")
    number = 1
    while True:  # runs that start in the same second have a folder each
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def due(every: int, env_steps: int, batch: TensorDictBase) -> bool:
    """Whether a multiple of ``every`` was reached with the last batch of environment steps.

    Args:
        every (int): environment steps from one time to the next.
        env_steps (int): steps so far, the batch included.
        batch (TensorDictBase): the last batch, each entry a step.

    Returns:
        bool: whether it is time again.

    Examples:
        >>> from tensordict import TensorDict
        >>> batch = TensorDict(batch_size=10)
        >>> due(100, env_steps=90, batch=batch), due(100, env_steps=105, batch=batch)
        (False, True)
    """
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

    Returns:
        dict: the columns of ``progress.csv`` but for ``env_steps``.

    Examples:
        >>> from mpo_torchrl.trainer import Progress
        >>> progress = Progress()
        >>> _ = progress.note(torch.tensor([1.0, 3.0]))
        >>> row = progress_row(progress, losses=None)
        >>> row["eval_return_mean"], row["eval_return_stddev"]
        (2.0, 1.0)
    """
    return {
        "updates": progress.updates,
        "wall_seconds": round(progress.wall_seconds, 3),
        **return_figures(progress),
        **({} if losses is None else {key: value.item() for key, value in losses.items()}),
    }


def progress_line(env_steps: int, row: Mapping[str, float]) -> str:
    """One line of a run's output: an evaluation in words.

    Args:
        env_steps (int): steps so far.
        row (mapping): from :func:`progress_row`.

    Returns:
        str: steps, mean and stddev of the returns, and three diagnostics if they are there.

    Examples:
        >>> row = {"eval_return_mean": -150.0, "eval_return_stddev": 70.0, "temperature": 2.5}
        >>> progress_line(8000, row)
        '    8,000 steps  return   -150.00 +- 70.00  temperature 2.5'
    """
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

    Keyword Args:
        state_sha256 (str): digest of networks, targets, duals and optimizer.
        diagnostics (mapping): what the loss said of a batch after the last update.

    Returns:
        dict: plain values.

    Examples:
        >>> from mpo_torchrl.trainer import MPOConfig, Progress
        >>> progress = Progress()
        >>> _ = progress.note(torch.tensor([1.0, 3.0]))
        >>> metrics = final_metrics(
        ...     MPOConfig(seed=7), progress, state_sha256="", diagnostics={"kl_mean": 0.01}
        ... )
        >>> metrics["mean_reward"], metrics["seed"], metrics["kl_mean"]
        (2.0, 7, 0.01)
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
    """Write ``metrics`` as JSON in one step; a number that JSON lacks becomes ``null``.

    Args:
        path (Path): the file.
        metrics (mapping): what JSON can hold.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "metrics.json")
        >>> write_metrics(path, {"mean_reward": 1.5, "loss_actor": float("nan")})
        >>> json.loads(path.read_text())
        {'mean_reward': 1.5, 'loss_actor': None}
    """
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
    replace_text(path, json.dumps(plain, indent=2, allow_nan=False) + "\n")
