"""A task that only memory solves: the sign shown at first is the action wanted at every step.

    python -m benchmarks.recall

Trains recurrent and memoryless networks with the same loss on the same kind of data, which are
random actions, and prints the mean reward of the mean action where the sign is no longer shown.
Without memory nothing is better than -1; a perfect memory has 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.modules import set_recurrent_mode

from mpo_torchrl import MPOLoss
from mpo_torchrl.modules import (
    make_actor,
    make_critics,
    make_recurrent_actor,
    make_recurrent_critics,
)
from mpo_torchrl.targets import FusedSoftUpdate
from mpo_torchrl.trainer import total_loss

SPEC = Bounded(-1.0, 1.0, shape=(1,))
STEPS, STATE, CELLS = 4, 16, (16,)


def play(episodes: int) -> TensorDict:
    """Random actions; each step is paid for its distance to the sign shown at the first one."""
    sign = torch.rand(episodes, 1, 1).sub(0.5).sign()
    seen = torch.cat([sign, torch.zeros(episodes, STEPS, 1)], dim=1)
    action = 2 * torch.rand(episodes, STEPS, 1) - 1
    batch = TensorDict(observation=seen[:, :-1], action=action, batch_size=[episodes, STEPS])
    batch["is_init"] = torch.zeros(episodes, STEPS, 1, dtype=torch.bool)
    batch["is_init"][:, 0] = True
    batch["actor_state"] = torch.zeros(episodes, STEPS, 1, STATE)
    ended = torch.zeros(episodes, STEPS, 1, dtype=torch.bool)
    ended[:, -1] = True
    reward = -(action - sign).square()
    batch["next"] = TensorDict(
        observation=seen[:, 1:], reward=reward, done=ended, terminated=ended, batch_size=batch.shape
    )
    return batch


def make_networks(recurrent: bool) -> tuple[Any, Any]:
    """Actor and critics of the same widths, with a GRU below or without."""
    if not recurrent:
        return make_actor(1, SPEC, num_cells=CELLS), make_critics(1, SPEC, num_cells=CELLS)
    sizes: dict[str, Any] = {"num_cells": CELLS, "state_size": STATE}
    return make_recurrent_actor(1, SPEC, **sizes), make_recurrent_critics(1, SPEC, **sizes)


def mean_rewards(recurrent: bool, updates: int, every: int) -> Iterator[tuple[int, float]]:
    """Updates so far and the mean reward then, every so many updates."""
    loss = MPOLoss(*make_networks(recurrent)).make_value_estimator(gamma=0.5)
    parameters = [*loss.network_parameters(), *loss.dual_parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    updater = FusedSoftUpdate(loss, tau=0.05)
    for update in range(1, updates + 1):
        total_loss(loss(play(32))).backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
        if update % every == 0:
            yield update, _mean_reward(loss)


def _mean_reward(loss: MPOLoss) -> float:
    batch = play(64)
    wanted = batch["observation"][:, :1]
    with set_recurrent_mode(True), torch.no_grad():
        action = loss.actor_network.get_dist(batch).mean.clamp(-1.0, 1.0)
    return -(action - wanted).square()[:, 1:].mean().item()


def main() -> None:
    """Print a row for each kind of network, seed and number of updates."""
    print("recurrent,seed,updates,mean_reward")
    for recurrent in (True, False):
        for seed in (0, 1):
            torch.manual_seed(seed)
            for updates, reward in mean_rewards(recurrent, updates=300, every=50):
                print(f"{recurrent},{seed},{updates},{reward:.4f}", flush=True)


if __name__ == "__main__":
    main()
