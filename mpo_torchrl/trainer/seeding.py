"""One seed for everything random, and a way to leave it untouched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torchrl.checkpoint import GlobalRNGState

LAST_SEED = 2**31 - 1
"""The greatest seed that every generator takes."""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; networks, actions and replay indices draw from the latter.

    The environment has its own generator: ``env.set_seed(seed)``.

    Args:
        seed (int): the seed.

    Examples:
        >>> seed_everything(0)
        >>> torch.rand(1)
        tensor([0.4963])
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Restore the process-wide random state afterwards, whatever was drawn meanwhile.

    Examples:
        >>> seed_everything(0)
        >>> with keep_random_state():
        ...     _ = torch.rand(3)
        >>> torch.rand(1)
        tensor([0.4963])
    """
    state = GlobalRNGState().state_dict()
    try:
        yield
    finally:
        GlobalRNGState().load_state_dict(state)


class OwnRandomState:
    """A random state of one's own, put in the place of the process-wide one while it is used.

    It begins as the process-wide state is at that moment.

    Examples:
        >>> seed_everything(0)
        >>> own = OwnRandomState()
        >>> _ = torch.rand(3)  # what others draw
        >>> with own.used():
        ...     torch.rand(1)
        tensor([0.4963])
    """

    def __init__(self) -> None:
        self._is_used = False
        self.keep()

    def keep(self) -> None:
        """Go on from the process-wide state as it is now."""
        self._kept = GlobalRNGState().state_dict()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Draw from it, and keep where that ended."""
        GlobalRNGState().load_state_dict(self._kept)
        self._is_used = True
        try:
            yield
        finally:
            self._is_used = False
            self.keep()

    def state_dict(self) -> dict[str, Any]:
        """The state, that of the process while it is used."""
        return GlobalRNGState().state_dict() if self._is_used else self._kept

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a state."""
        self._kept = state_dict
        if self._is_used:
            GlobalRNGState().load_state_dict(state_dict)
