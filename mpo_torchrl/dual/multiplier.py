"""A positive number that is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

_FLOOR = -18.0
_OFFSET = 1e-8
_LEAST = math.log1p(math.exp(_FLOOR)) + _OFFSET  # with softplus

Parametrization = Literal["softplus", "exp"]


class LagrangeMultiplier(nn.Module):
    r"""A trained multiplier that starts at the value it was given and stays positive.

    .. math:: \alpha = \mathrm{softplus}(\max(x, -18)) + 10^{-8}
        \qquad\text{or}\qquad \alpha = e^{\max(x, -18)}

    ``x`` is the parameter ``raw``. Below the floor only a gradient that lifts it passes: a
    multiplier rises again as soon as it should, and does not sink where it would have to come
    back from. Acme clips the parameter itself after each step to that end. The form with softplus
    is Acme's, of `Hoffman et al. (2020) <https://arxiv.org/abs/2006.00979>`_.

    Args:
        init (float): the value at the start, positive, unit of the multiplier.

    Keyword Args:
        shape (sequence of int): shape of the multiplier, ``()`` by default.
        parametrization (str): ``"softplus"`` (default) or ``"exp"``.
        bound_name (str, optional): what it enforces, for error messages.

    Raises:
        TypeError: if ``init`` is no number.
        ValueError: if ``init`` is not positive or the parametrization is unknown.

    Examples:
        >>> from mpo_torchrl.dual import LagrangeMultiplier
        >>> multiplier = LagrangeMultiplier(1000.0, shape=(2,))
        >>> multiplier()
        tensor([1000., 1000.], grad_fn=<AddBackward0>)
        >>> multiplier.assign(3.0)
        >>> multiplier().tolist()
        [3.0, 3.0]
    """

    def __init__(
        self,
        init: float,
        *,
        shape: Sequence[int] = (),
        parametrization: Parametrization = "softplus",
        bound_name: str | None = None,
    ) -> None:
        super().__init__()
        self._called = "a Lagrange multiplier"
        if bound_name is not None:
            self._called = f"the Lagrange multiplier of {bound_name}"
        if parametrization not in ("softplus", "exp"):
            raise ValueError(
                f"parametrization must be 'softplus' or 'exp', got {parametrization!r}."
            )
        self.init = init
        self.parametrization = parametrization
        self.raw = nn.Parameter(torch.empty(tuple(shape)))
        self.assign(init)

    def forward(self) -> Tensor:
        """The multiplier, positive, in the shape given at construction."""
        raw: Tensor = _Floor.apply(self.raw)
        if self.parametrization == "exp":
            return raw.exp()
        # The default threshold of 20 would cost 2e-9 of the gradient.
        return nn.functional.softplus(raw, threshold=40) + _OFFSET

    @torch.no_grad()
    def assign(self, value: float | Tensor) -> None:
        """Sets the multiplier itself, not its raw parameter, in place."""
        # In double precision: inverting softplus in float32 would lose small multipliers.
        try:
            value = torch.as_tensor(value, dtype=torch.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{self._called} must be a number, got {value!r}.") from None
        if value.numel() != 1 and value.shape != self.raw.shape:
            raise ValueError(
                f"{self._called} is one number or of shape {list(self.raw.shape)}, got one of "
                f"shape {list(value.shape)}."
            )
        if not bool((value > 0).all()) or not bool(value.isfinite().all()):
            raise ValueError(f"{self._called} must be positive and finite, got {value.tolist()}.")
        least = math.exp(_FLOOR) if self.parametrization == "exp" else _LEAST
        if not bool((value > 0.999 * least).all()):  # it may have been rounded on its way here
            raise ValueError(
                f"{self._called} starts at {least:.2g} or above, got {value.tolist()}."
            )
        if self.parametrization == "exp":
            raw = value.log()
        else:
            value = value - _OFFSET
            raw = value + torch.log(-torch.expm1(-value))
        self.raw.copy_(raw.clamp(min=_FLOOR).to(self.raw))

    def reset_parameters(self) -> None:
        """Puts the multiplier back to its initial value."""
        self.assign(self.init)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"init={self.init}, parametrization={self.parametrization!r}"


class _Floor(torch.autograd.Function):
    """No value below the floor; below it, no gradient whose step leads further down."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        ctx.save_for_backward(raw)
        return raw.clamp(min=_FLOOR)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (raw,) = ctx.saved_tensors
        return torch.where(raw < _FLOOR, gradient.clamp(max=0.0), gradient)
