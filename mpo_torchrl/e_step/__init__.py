"""Part 2, the E-step: improve the policy on sampled actions, no network is trained."""

from __future__ import annotations

from mpo_torchrl.e_step.sampled import SampledEStep

__all__ = ["SampledEStep"]
