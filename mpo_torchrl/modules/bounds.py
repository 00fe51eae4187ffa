"""The scale of an action space."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrl.data import Bounded, TensorSpec, Unbounded


def action_range(action_spec: TensorSpec) -> tuple[Tensor, Tensor, bool]:
    """Middle and half range ``[A]`` of the actions, and whether both bounds are finite.

    In the default dtype, that of the networks, whatever the environment's is. An action space
    without bounds, or with bounds as wide as numbers go, has middle 0 and half range 1.

    Raises:
        ValueError: if a dimension leaves no choice, or the spec is not that of one vector of real
            numbers.
    """
    if not isinstance(action_spec, (Bounded, Unbounded)) or not action_spec.ndim:
        raise ValueError(
            "the action spec must be of one vector of real numbers, Bounded or Unbounded, got "
            f"{type(action_spec).__name__} of shape {list(action_spec.shape)}; of a Composite give "
            "the entry of the action."
        )
    size = action_spec.shape[-1]
    if isinstance(action_spec, Bounded):
        space, dtype = action_spec.space, torch.get_default_dtype()
        low, high = (bound.reshape(-1, size)[0].to(dtype) for bound in (space.low, space.high))
        if not bool((low < high).all()):
            raise ValueError(
                "every dimension of an action needs a low below its high, got low "
                f"{low.tolist()} and high {high.tolist()}; leave out what cannot be chosen."
            )
        middle, half_range = (low + high) / 2, (high - low) / 2
        if bool(middle.isfinite().all() and half_range.isfinite().all()):
            return middle, half_range, True
    return torch.zeros(size), torch.ones(size), False
