from __future__ import annotations

import pytest
import torch
from torchrl.data import Bounded
from torchrl.objectives import SoftUpdate

from mpo_torchrl import MPOLoss
from mpo_torchrl.modules import make_actor, make_critics
from mpo_torchrl.targets import FusedSoftUpdate

SPEC = Bounded(-1.0, 1.0, shape=(2,))


def make_loss() -> MPOLoss:
    torch.manual_seed(0)
    cells = {"num_cells": (8,)}
    return MPOLoss(make_actor(3, SPEC, **cells), make_critics(3, SPEC, **cells))


def move(loss: MPOLoss) -> None:
    for parameter in loss.network_parameters():
        parameter.data.add_(torch.randn_like(parameter))


def test_targets_move_exactly_as_with_soft_update() -> None:
    states = []
    for updater in (SoftUpdate, FusedSoftUpdate):
        loss = make_loss()
        targets = updater(loss, tau=0.1)
        for _ in range(3):
            move(loss)
            targets.step()
        states.append(loss.state_dict())
    for key, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][key]), key


def test_every_target_moves() -> None:
    loss = make_loss()
    targets = FusedSoftUpdate(loss, tau=0.1)
    before = loss.target_actor_network_params.clone(), loss.target_qvalue_network_params.clone()
    move(loss)
    targets.step()
    after = loss.target_actor_network_params, loss.target_qvalue_network_params
    for old, new in zip(before, after, strict=True):
        for key, value in new.items(True, True):
            is_buffer = "half_range" in key or "middle" in key
            assert torch.equal(value, old.get(key)) == is_buffer, key


if __name__ == "__main__":
    pytest.main([__file__])
