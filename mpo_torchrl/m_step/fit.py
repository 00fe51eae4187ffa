"""What every M-step returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


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
