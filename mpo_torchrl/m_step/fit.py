"""What every M-step returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Fit:
    """How well the online policy matches the weights, and how far it moved for it."""

    nll: Tensor
    """``[*B]``, weighted negative log-likelihood of the actions, nats."""
    kl: dict[str, Tensor]
    """A KL for each constraint by name: ``[*B, A]`` if per dimension, else ``[*B]``, nats."""
    readings: dict[str, Tensor] = field(default_factory=dict)
    """``[*B]`` each, detached: what else is worth a plot."""
