"""Part 3, the dual: how greedy may the E-step be, how far may the policy move.

Each bound of MPO has a Lagrange multiplier that is trained with the networks: the
temperature of the E-step and the KL multipliers of the M-step.
"""

from __future__ import annotations

from mpo_torchrl.dual.exact import ExactTemperature
from mpo_torchrl.dual.fixed import FixedTemperature
from mpo_torchrl.dual.kl import KLMultiplier
from mpo_torchrl.dual.multiplier import LagrangeMultiplier
from mpo_torchrl.dual.objectives import ObjectiveTemperatures
from mpo_torchrl.dual.penalty import ActionPenalty
from mpo_torchrl.dual.temperature import CategoricalTemperature, Temperature

__all__ = [
    "ActionPenalty",
    "CategoricalTemperature",
    "ExactTemperature",
    "FixedTemperature",
    "KLMultiplier",
    "LagrangeMultiplier",
    "ObjectiveTemperatures",
    "Temperature",
]
