"""One seed for everything random, and a way to leave it untouched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torchrl.checkpoint import GlobalRNGState


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
