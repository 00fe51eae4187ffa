"""The learning curve of rlox's MPO: ``python -m benchmarks.rlox_returns seed=0 run_dir=...``.

Its own defaults and its own loop. Evaluated as our recipe evaluates: the mean action, in the same
environments from the same start states, written into the same columns of ``progress.csv``.
"""

from __future__ import annotations

from typing import Any

from rlox.algorithms.mpo import MPO
from rlox.callbacks import Callback
from torch import Tensor

from benchmarks.curve import Curve, run_peer
from mpo_torchrl import MPOConfig
from mpo_torchrl.trainer import seed_everything


class _Evaluate(Callback):
    """A row of the curve where one is due."""

    curve: Curve

    def on_step(self, *, step: int, **_: Any) -> bool:
        self.curve.note(step)
        return True


def train(config: MPOConfig) -> Curve:
    """One run of rlox."""
    seed_everything(config.seed)  # rlox itself seeds no network and no action
    callback = _Evaluate()
    agent = MPO(config.env, seed=config.seed, callbacks=[callback])

    def mean_action(observation: Tensor) -> Tensor:
        # As rlox's loop would play it: clipped, never scaled to the action space.
        return agent.actor.deterministic(observation).clamp(-agent.act_high, agent.act_high)

    callback.curve = Curve(config, mean_action)
    agent.env.action_space.seed(config.seed)
    agent.train(config.total_timesteps)
    return callback.curve


if __name__ == "__main__":
    run_peer(train, "train an agent with rlox's MPO")
