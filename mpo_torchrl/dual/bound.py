"""A bound on a KL divergence, and the multiplier that enforces it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpo_torchrl.dual.multiplier import LagrangeMultiplier, Parametrization


class Bound(nn.Module):
    """A module with a bound ``epsilon``: a buffer, so it can be scheduled.

    Subclasses call :meth:`_register_bound` at construction.
    """

    epsilon: Tensor

    def _register_bound(self, epsilon: float, name: str) -> None:
        self.bound_name = name
        self.register_buffer("epsilon", torch.empty(()))
        self.set_epsilon(epsilon)

    @torch.no_grad()
    def set_epsilon(self, epsilon: float | Tensor) -> None:
        """Changes the bound in place.

        Raises:
            TypeError: if it is not one number.
            ValueError: if it is not positive and finite.
        """
        try:
            number = float(epsilon)
        except (TypeError, ValueError):  # several, a text, none
            raise TypeError(
                f"{self.bound_name} is a bound on a KL divergence and must be one number, got "
                f"{epsilon!r}."
            ) from None
        if not 0 < number < float("inf"):
            raise ValueError(
                f"{self.bound_name} is a bound on a KL divergence and must be positive and "
                f"finite, got {number}."
            )
        self._exact_epsilon = number
        self.epsilon.fill_(self._exact_epsilon)

    def _apply(self, fn: Any, recurse: bool = True) -> Bound:
        rounded = torch.tensor(self._exact_epsilon).to(self.epsilon)
        unchanged = bool(self.epsilon == rounded)  # nobody wrote into the buffer itself
        super()._apply(fn, recurse)
        if unchanged:  # a loss cast to float64 has the bound it was given, not a rounded one
            self.epsilon.fill_(self._exact_epsilon)
        return self

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"epsilon={float(self.epsilon):g}"


class BoundedMultiplier(LagrangeMultiplier, Bound):
    """A multiplier together with the bound it enforces.

    Args:
        epsilon (float): the bound, positive, nats.
        init (float): the multiplier at the start, positive.

    Keyword Args:
        shape (sequence of int): shape of the multiplier, ``()`` by default.
        parametrization (str): ``"softplus"`` (default) or ``"exp"``.
        name (str): what the bound is called in error messages.

    Raises:
        ValueError: if ``epsilon`` or ``init`` is not positive and finite.
    """

    def __init__(
        self,
        epsilon: float,
        init: float,
        *,
        shape: Sequence[int] = (),
        parametrization: Parametrization = "softplus",
        name: str = "epsilon",
    ) -> None:
        super().__init__(init, shape=shape, parametrization=parametrization, bound_name=name)
        self._register_bound(epsilon, name)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{Bound.extra_repr(self)}, {LagrangeMultiplier.extra_repr(self)}"
