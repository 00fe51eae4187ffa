"""The learning curve of a peer, evaluated as our recipe evaluates itself."""

from __future__ import annotations

import csv
from pathlib import Path
from time import perf_counter
from typing import Any

from tensordict.nn import TensorDictModuleBase

from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer import evaluate, make_evaluation_env

COLUMNS = ["env_steps", "wall_seconds", "eval_return_mean", "eval_return_stddev"]


class Curve:
    """``progress.csv`` in ``config.run_dir``, with a row every ``config.eval_every`` steps.

    Args:
        config (MPOConfig): the environment, how often and over how many episodes.
        policy (TensorDictModuleBase): the peer's mean action.
    """

    def __init__(self, config: MPOConfig, policy: TensorDictModuleBase) -> None:
        self.eval_every, self.policy, self.start = config.eval_every, policy, perf_counter()
        self.env = make_evaluation_env(config)
        self.path = Path(config.run_dir) / "progress.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.mean_reward = float("nan")
        self._write(COLUMNS, "w")

    def note(self, step: int) -> None:
        """Evaluates the peer if a row is due after ``step`` steps."""
        if step % self.eval_every:
            return
        returns = evaluate(self.env, self.policy)
        self.mean_reward = returns.mean().item()
        row = [step, perf_counter() - self.start, self.mean_reward, returns.std().item()]
        self._write(row, "a")
        print(dict(zip(COLUMNS, row, strict=True)), flush=True)

    def _write(self, row: list[Any], mode: str) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)
