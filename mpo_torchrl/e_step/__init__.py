"""Part 2, the E-step: improve the policy, no network is trained."""

from __future__ import annotations

from mpo_torchrl.e_step.advantage import AdvantageEStep
from mpo_torchrl.e_step.behaviour import BehaviourEStep
from mpo_torchrl.e_step.enumerated import EnumeratedEStep
from mpo_torchrl.e_step.multi_objective import MultiObjectiveEStep
from mpo_torchrl.e_step.sampled import SampledEStep

__all__ = [
    "AdvantageEStep",
    "BehaviourEStep",
    "EnumeratedEStep",
    "MultiObjectiveEStep",
    "SampledEStep",
]
