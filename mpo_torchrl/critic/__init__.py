"""Part 1, policy evaluation: how good is an action under the policy?"""

from __future__ import annotations

from mpo_torchrl.critic.base import Critic
from mpo_torchrl.critic.categorical import CategoricalCritic
from mpo_torchrl.critic.distributional import DistributionalCritic
from mpo_torchrl.critic.enumerated import EnumeratedCritic
from mpo_torchrl.critic.mixture import MixtureCritic
from mpo_torchrl.critic.multi_objective import MultiObjectiveCritic
from mpo_torchrl.critic.quantile import QuantileCritic
from mpo_torchrl.critic.retrace import RetraceEstimator
from mpo_torchrl.critic.scalar import ScalarCritic
from mpo_torchrl.critic.two_hot import TwoHotCritic

__all__ = [
    "CategoricalCritic",
    "Critic",
    "DistributionalCritic",
    "EnumeratedCritic",
    "MixtureCritic",
    "MultiObjectiveCritic",
    "QuantileCritic",
    "RetraceEstimator",
    "ScalarCritic",
    "TwoHotCritic",
]
