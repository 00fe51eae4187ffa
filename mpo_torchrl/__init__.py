"""MPO, the whole family, as TorchRL loss modules made of four exchangeable parts."""

from __future__ import annotations

from importlib.metadata import version

from mpo_torchrl.loss import DiscreteMPOLoss, MPOLoss, MultiObjectiveMPOLoss, VMPOLoss
from mpo_torchrl.trainer import MPOConfig, MPOTrainer

__version__ = version("mpo_torchrl")
__all__ = [
    "DiscreteMPOLoss",
    "MPOConfig",
    "MPOLoss",
    "MPOTrainer",
    "MultiObjectiveMPOLoss",
    "VMPOLoss",
    "__version__",
]
