"""The learning curve of rlox's MPO: ``python -m benchmarks.rlox_returns seed=0 run_dir=...``.

Its own defaults and its own loop. Evaluated as our recipe evaluates: the mean action, in the same
environments from the same start states, written into the same columns of ``progress.csv``.
"""

from __future__ import annotations

import csv
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rlox.algorithms.mpo import MPO
from rlox.callbacks import Callback
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer import evaluate, make_evaluation_env, seed_everything
from mpo_torchrl.trainer.command_line import run_from_command_line

COLUMNS = ["env_steps", "wall_seconds", "eval_return_mean", "eval_return_stddev"]


class _MeanPolicy(TensorDictModuleBase):
    """The mean action as rlox's loop would play it: clipped, never scaled to the action space."""

    in_keys = ["observation"]
    out_keys = ["action"]

    def __init__(self, agent: MPO) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        action = self.agent.actor.deterministic(tensordict["observation"])
        return tensordict.set("action", action.clamp(-self.agent.act_high, self.agent.act_high))


class _Evaluate(Callback):
    """A row every ``eval_every`` steps."""

    def __init__(self, config: MPOConfig) -> None:
        self.config, self.start = config, perf_counter()
        self.env = make_evaluation_env(config)
        self.path = Path(config.run_dir) / "progress.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write(COLUMNS, "w")

    def on_step(self, *, step: int, algo: MPO, **_: Any) -> bool:
        if step % self.config.eval_every == 0:
            returns = evaluate(self.env, _MeanPolicy(algo))
            row = [step, perf_counter() - self.start, returns.mean().item(), returns.std().item()]
            self._write(row, "a")
            print(dict(zip(COLUMNS, row, strict=True)), flush=True)
        return True

    def _write(self, row: list[Any], mode: str) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)


def train(config: MPOConfig) -> dict[str, Any]:
    """One run of rlox; of the settings, those below count."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    seed_everything(config.seed)  # rlox itself seeds no network and no action
    callback = _Evaluate(config)
    agent = MPO(config.env, seed=config.seed, callbacks=[callback])
    agent.env.action_space.seed(config.seed)
    metrics = agent.train(config.total_timesteps)
    return {**metrics, "run_dir": config.run_dir}


if __name__ == "__main__":
    configs = Path(__file__).parents[1] / "recipes" / "configs"
    run_from_command_line(train, configs, "train an agent with rlox's MPO")
