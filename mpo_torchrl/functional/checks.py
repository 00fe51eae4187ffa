"""What every function asks of its arguments."""

from __future__ import annotations

from torch import Tensor


def require_samples(name: str, tensor: Tensor) -> None:
    """Raises ``ValueError`` unless the last dimension holds at least one action."""
    if tensor.ndim == 0 or tensor.shape[-1] == 0:
        raise ValueError(
            f"{name} must be [*B, N] with N at least 1, one entry an action, got shape "
            f"{tuple(tensor.shape)}."
        )


def require_same_shape(**tensors: Tensor) -> None:
    """Raises ``ValueError`` unless all named tensors have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"these must have one shape, got {found}.")
