"""The loss modules: the four parts wired together, one file a loss."""

from __future__ import annotations

from mpo_torchrl.loss.discrete import DiscreteMPOLoss
from mpo_torchrl.loss.mpo import MPOLoss
from mpo_torchrl.loss.multi_objective import MultiObjectiveMPOLoss
from mpo_torchrl.loss.vmpo import VMPOLoss

__all__ = [
    "DiscreteMPOLoss",
    "MPOLoss",
    "MultiObjectiveMPOLoss",
    "VMPOLoss",
]
