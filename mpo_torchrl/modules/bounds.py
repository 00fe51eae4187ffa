"""The scale of an action space."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.data import Bounded, TensorSpec


def action_range(action_spec: TensorSpec) -> tuple[Tensor, Tensor, bool]:
    """Middle and half range ``[A]`` of the actions, and whether both bounds are finite.

    An unbounded action space has middle 0 and half range 1.
    """
    size = action_spec.shape[-1]
    if isinstance(action_spec, Bounded):
        space = action_spec.space
        low, high = space.low.reshape(-1, size)[0], space.high.reshape(-1, size)[0]
        if bool(low.isfinite().all() and high.isfinite().all()):
            return (low + high) / 2, (high - low) / 2, True
    return torch.zeros(size), torch.ones(size), False
