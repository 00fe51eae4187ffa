"""The learning curve of Stable-Baselines3's SAC: ``python -m benchmarks.sac_returns seed=0 ...``.

Its own defaults and its own loop, with as many updates a step as ``utd_ratio`` says. Evaluated as
our recipe evaluates: the mean action, in the same environments from the same start states, written
into the same columns of ``progress.csv``.
"""

from __future__ import annotations

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from benchmarks.curve import Curve, run_peer
from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer.settings import SettingError


class _Evaluate(BaseCallback):
    """A row of the curve where one is due."""

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        self.curve = curve

    def _on_step(self) -> bool:
        self.curve.note(self.num_timesteps)
        return True


def train(config: MPOConfig) -> Curve:
    """One run of SAC.

    Raises:
        SettingError: if the updates a step are no whole number.
    """
    if not config.utd_ratio.is_integer():
        raise SettingError(
            f"utd_ratio must be a whole number for SAC's loop, got {config.utd_ratio}."
        )
    updates = int(config.utd_ratio)
    agent = SAC("MlpPolicy", config.env, seed=config.seed, device="cpu", gradient_steps=updates)

    def mean_action(observation: Tensor) -> Tensor:
        # Scaled to the action space as SAC itself does it.
        action, _ = agent.predict(observation.numpy(), deterministic=True)
        return torch.as_tensor(action)

    curve = Curve(config, mean_action)
    agent.learn(config.total_timesteps, callback=_Evaluate(curve))
    return curve


if __name__ == "__main__":
    run_peer(train, "train an agent with Stable-Baselines3's SAC")
