"""The learning curve of rlox's MPO: ``python -m benchmarks.rlox_returns seed=0 run_dir=...``.

Its own defaults and its own loop. Evaluated as our recipe evaluates: the mean action, in the same
environments from the same start states, written into the same columns of ``progress.csv``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rlox.algorithms.mpo import MPO
from rlox.callbacks import Callback
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from benchmarks.curve import Curve
from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer import seed_everything
from mpo_torchrl.trainer.command_line import run_from_command_line


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
    """A row of the curve where one is due."""

    curve: Curve

    def on_step(self, *, step: int, **_: Any) -> bool:
        self.curve.note(step)
        return True


def train(config: MPOConfig) -> dict[str, Any]:
    """One run of rlox; of the settings, those of environment, run and evaluation count."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    seed_everything(config.seed)  # rlox itself seeds no network and no action
    callback = _Evaluate()
    agent = MPO(config.env, seed=config.seed, callbacks=[callback])
    callback.curve = Curve(config, _MeanPolicy(agent))
    agent.env.action_space.seed(config.seed)
    agent.train(config.total_timesteps)
    return {"mean_reward": callback.curve.mean_reward, "run_dir": config.run_dir}


if __name__ == "__main__":
    configs = Path(__file__).parents[1] / "recipes" / "configs"
    run_from_command_line(train, configs, "train an agent with rlox's MPO")
