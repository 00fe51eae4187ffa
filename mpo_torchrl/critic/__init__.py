"""Part 1, policy evaluation: how good is an action under the policy?"""

from __future__ import annotations

from mpo_torchrl.critic.enumerated import EnumeratedCritic
from mpo_torchrl.critic.scalar import ScalarCritic

__all__ = ["EnumeratedCritic", "ScalarCritic"]
