"""The learning curve of a peer, evaluated as our recipe evaluates itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torch import Tensor

from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer import evaluate, make_evaluation_env
from mpo_torchrl.trainer.command_line import run_from_command_line
from mpo_torchrl.trainer.table_logger import TableLogger

CONFIGS = Path(__file__).parents[1] / "recipes" / "configs"


class Curve:
    """``progress.csv`` in ``config.run_dir``, with a row every ``config.eval_every`` steps.

    Args:
        config (MPOConfig): the environment, how often and over how many episodes.
        mean_action (callable): the peer's, from observations ``[E, O]`` to actions ``[E, A]``.
    """

    def __init__(self, config: MPOConfig, mean_action: Callable[[Tensor], Tensor]) -> None:
        self.config, self.start = config, perf_counter()
        self.policy = TensorDictModule(mean_action, in_keys=["observation"], out_keys=["action"])
        self.env = make_evaluation_env(config)
        self.table = TableLogger("progress", config.run_dir)
        self.mean_reward = float("nan")

    def note(self, step: int) -> None:
        """Evaluates the peer if a row is due after ``step`` steps."""
        if step % self.config.eval_every:
            return
        returns = evaluate(self.env, self.policy)
        self.mean_reward = returns.mean().item()
        row = {
            "wall_seconds": perf_counter() - self.start,
            "eval_return_mean": self.mean_reward,
            "eval_return_stddev": returns.std(correction=0).item(),
        }
        self.table.log_metrics(row, step=step)
        print(f"{step:9,} steps  return {self.mean_reward:9.2f}", flush=True)

    @property
    def figures(self) -> dict[str, Any]:
        """The last return, and where the table is."""
        return {"mean_reward": self.mean_reward, "run_dir": self.config.run_dir}


def run_peer(train: Callable[[MPOConfig], Curve], help: str) -> None:
    """One run from the command line; settings of environment, run and evaluation count.

    Args:
        train (callable): trains the peer, and gives its curve.
        help (str): what ``--help`` says first.
    """

    def run(config: MPOConfig) -> dict[str, Any]:
        if config.num_threads:
            torch.set_num_threads(config.num_threads)
        return train(config).figures

    run_from_command_line(run, CONFIGS, help)
