"""Numbers of a loss that people change while it trains."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchrl.objectives.common import LossModule


def bound(multiplier: str) -> property:
    """The bound of one multiplier as an attribute of the loss: ``loss.epsilon = 0.05``.

    Args:
        multiplier (str): the multiplier's name in the loss.
    """

    def get(self: LossModule) -> Tensor:
        return _find(self).epsilon

    def assign(self: LossModule, epsilon: float) -> None:
        _find(self).set_epsilon(epsilon)

    def _find(loss: LossModule) -> Any:
        module = loss._modules.get(multiplier)
        if module is None:
            raise AttributeError(f"this loss has no {multiplier}, hence no bound for it.")
        if not hasattr(module, "set_epsilon"):
            kind = type(module).__name__
            raise AttributeError(f"the {multiplier} of this loss is a {kind}, which has no bound.")
        return module

    return property(get, assign, doc=f"Bound that ``{multiplier}`` enforces, nats.")
