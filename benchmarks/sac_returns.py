"""The learning curve of Stable-Baselines3's SAC: ``python -m benchmarks.sac_returns seed=0 ...``.

Its own defaults and its own loop. Evaluated as our recipe evaluates: the mean action, in the same
environments from the same start states, written into the same columns of ``progress.csv``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase

from benchmarks.curve import Curve
from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer.command_line import run_from_command_line


class _MeanPolicy(TensorDictModuleBase):
    """The mean action, scaled to the action space as SAC itself does it."""

    in_keys = ["observation"]
    out_keys = ["action"]

    def __init__(self, agent: SAC) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation = tensordict["observation"]
        action, _ = self.agent.predict(observation.numpy(), deterministic=True)
        return tensordict.set("action", torch.as_tensor(action))


class _Evaluate(BaseCallback):
    """A row of the curve where one is due."""

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        self.curve = curve

    def _on_step(self) -> bool:
        self.curve.note(self.num_timesteps)
        return True


def train(config: MPOConfig) -> dict[str, Any]:
    """One run of SAC; of the settings, those of environment, run and evaluation count."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    agent = SAC("MlpPolicy", config.env, seed=config.seed, device="cpu")
    curve = Curve(config, _MeanPolicy(agent))
    agent.learn(config.total_timesteps, callback=_Evaluate(curve))
    return {"mean_reward": curve.mean_reward, "run_dir": config.run_dir}


if __name__ == "__main__":
    configs = Path(__file__).parents[1] / "recipes" / "configs"
    run_from_command_line(train, configs, "train an agent with Stable-Baselines3's SAC")
