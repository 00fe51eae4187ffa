"""Part 4, the M-step: the policy that best matches the weights inside the trust region."""

from __future__ import annotations

from mpo_torchrl.m_step.categorical import CategoricalMStep
from mpo_torchrl.m_step.composite import CompositeMStep
from mpo_torchrl.m_step.distribution import DistributionMStep
from mpo_torchrl.m_step.fit import Fit
from mpo_torchrl.m_step.gaussian import GaussianMStep
from mpo_torchrl.m_step.likelihood import LikelihoodMStep

__all__ = [
    "CategoricalMStep",
    "CompositeMStep",
    "DistributionMStep",
    "Fit",
    "GaussianMStep",
    "LikelihoodMStep",
]
