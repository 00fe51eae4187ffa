"""The learning curve of a peer, evaluated as our recipe evaluates itself."""

from __future__ import annotations

from time import perf_counter

from tensordict.nn import TensorDictModuleBase

from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer import evaluate, make_evaluation_env
from mpo_torchrl.trainer.table_logger import TableLogger


class Curve:
    """``progress.csv`` in ``config.run_dir``, with a row every ``config.eval_every`` steps.

    Args:
        config (MPOConfig): the environment, how often and over how many episodes.
        policy (TensorDictModuleBase): the peer's mean action.
    """

    def __init__(self, config: MPOConfig, policy: TensorDictModuleBase) -> None:
        self.eval_every, self.policy, self.start = config.eval_every, policy, perf_counter()
        self.env = make_evaluation_env(config)
        self.table = TableLogger("progress", config.run_dir)
        self.mean_reward = float("nan")

    def note(self, step: int) -> None:
        """Evaluates the peer if a row is due after ``step`` steps."""
        if step % self.eval_every:
            return
        returns = evaluate(self.env, self.policy)
        self.mean_reward = returns.mean().item()
        row = {
            "wall_seconds": perf_counter() - self.start,
            "eval_return_mean": self.mean_reward,
            "eval_return_stddev": returns.std().item(),
        }
        self.table.log_metrics(row, step=step)
        print(f"{step:9,} steps  return {self.mean_reward:9.2f}", flush=True)
