"""One line that tells two learners apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def state_sha256(**components: Any) -> str:
    """SHA-256 over every tensor of the components' states: equal if and only if all bits are.

    The tensors come in the order of their names; each enters the digest with name, dtype, shape
    and bytes. ``metrics.json`` holds the digest of ``loss`` (networks, targets, duals) and
    ``optimizer``.

    Args:
        **components: objects with ``state_dict``, by name.

    Returns:
        str: 64 hexadecimal digits.

    Examples:
        >>> one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> state_sha256(loss=one) == state_sha256(loss=other)
        False
        >>> other.load_state_dict(one.state_dict())
        <All keys matched successfully>
        >>> state_sha256(loss=one) == state_sha256(loss=other)
        True
    """
    states = {name: component.state_dict() for name, component in components.items()}
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors("", states), key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        # A copy: an expanded tensor of one number counts as contiguous, and is not.
        plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        raw = plain.reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


def _tensors(prefix: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside nested mappings and sequences, with its path as name."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(f"{prefix}/{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _tensors(f"{prefix}/{index}", item)
