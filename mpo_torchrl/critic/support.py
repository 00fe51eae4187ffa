"""Where the atoms of a categorical critic are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def checked_support(support: Tensor | Sequence[float]) -> Tensor:
    """The atoms ``[K]`` as floating-point numbers of their own.

    Raises:
        TypeError: if they are no numbers.
        ValueError: unless they are at least two, finite and increasing.
    """
    try:
        support = torch.as_tensor(support).detach().clone()
    except (TypeError, ValueError, RuntimeError):  # none, a text, lists of several lengths
        raise TypeError(
            "support must be the atoms [K], such as torch.linspace(-150, 150, 51), got "
            f"{support!r}."
        ) from None
    if support.ndim != 1 or support.shape[0] < 2:
        raise ValueError(
            "support must be [K] with at least two atoms, such as torch.linspace(-150, 150, 51), "
            f"got shape {list(support.shape)}."
        )
    if not support.is_floating_point():
        support = support.to(torch.get_default_dtype())
    if not bool(support.isfinite().all()) or not bool((support.diff() > 0).all()):
        raise ValueError(
            f"support must be finite and increasing, got {support.tolist()[:5]}, ..., "
            f"{support[-1].item()}."
        )
    return support
