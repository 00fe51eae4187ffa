"""What every M-step returns, and how it is put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from mpo_torchrl.dual import KLMultiplier


@dataclass
class Fit:
    """How well the online policy matches the weights, and how far it moved for it.

    Args:
        nll (Tensor): ``[*B]``, weighted negative log-likelihood of the actions, nats.
        kl (dict): a KL for each constraint: ``[*B, A]`` if per dimension, else ``[*B]``, nats.
        readings (dict): ``[*B]`` each, detached: what else is worth a plot.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.m_step import Fit
        >>> fit = Fit(nll=torch.tensor([1.5]), kl={"policy": torch.tensor([0.01])})
        >>> fit.kl["policy"], fit.readings
        (tensor([0.0100]), {})
    """

    nll: Tensor
    kl: dict[str, Tensor]
    readings: dict[str, Tensor] = field(default_factory=dict)


def per_constraint(name: str, multiplier: KLMultiplier, kl: Tensor) -> Tensor:
    """KLs of the dimensions ``[*B, A]`` as the multiplier bounds them: so, or their sum ``[*B]``.

    Raises:
        ValueError: if the multiplier does not match the action's size.
    """
    shape = multiplier.raw.shape
    if not shape:
        return kl.sum(-1)
    if shape != kl.shape[-1:]:
        raise ValueError(
            f"alpha_{name} has {shape[0]} multipliers and the policy {kl.shape[-1]} action "
            "dimensions; pass the action_spec of this policy."
        )
    return kl


def gaussian_readings(scale: Tensor) -> dict[str, Tensor]:
    """Entropy in nats and mean stddev of a Gaussian, ``[*B]`` each, from stddevs ``[*B, A]``."""
    scale = scale.detach()
    return {
        "entropy": (scale.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1),
        "policy_stddev": scale.mean(-1),
    }
