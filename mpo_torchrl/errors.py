"""Errors that a person can read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor, nn


class MissingEntryError(KeyError):
    """A TensorDict lacks an entry; unlike its base it shows the sentence as it was written.

    Examples:
        >>> from mpo_torchrl.errors import MissingEntryError
        >>> str(MissingEntryError("there is no 'reward'."))
        "there is no 'reward'."
    """

    def __str__(self) -> str:
        return str(self.args[0])


def listed(keys: Iterable[NestedKey]) -> str:
    """Keys in a row, in an order that does not depend on the TensorDict.

    Examples:
        >>> from mpo_torchrl.errors import listed
        >>> listed([("next", "reward"), "action"])
        "'action', ('next', 'reward')"
    """
    return ", ".join(sorted(map(repr, keys)))


def require_count(name: str, value: int) -> None:
    """Raises ``TypeError`` if a count is no whole number, ``ValueError`` if it is below 1."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, at least 1, got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")


def require_number(name: str, value: object) -> None:
    """Raises ``TypeError`` unless it is one number, or a tensor of one."""
    if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.numel() == 1):
        raise TypeError(f"{name} must be a number, got {value!r}.")


def require_part(
    name: str,
    part: object,
    fitting: tuple[type, ...],
    needed: tuple[str, ...],
    others: tuple[type, ...] = (),
) -> None:
    """Raises ``TypeError`` if a part cannot take its place.

    Args:
        name (str): what it was passed as.
        part (object): what was passed.
        fitting (tuple of type): classes that do.
        needed (tuple of str): attributes that a module of one's own needs.
        others (tuple of type): classes that do not, whatever their attributes.
    """
    fits = isinstance(part, nn.Module) and all(hasattr(part, attribute) for attribute in needed)
    if not fits or (isinstance(part, others) and not isinstance(part, fitting)):
        such_as = " or ".join(kind.__name__ for kind in fitting)
        raise TypeError(f"{name} must be a module such as {such_as}, got {type(part).__name__}.")


def require_entry(improved: TensorDictBase, key: str, needed: str, shape: Sequence[int]) -> None:
    """Raises ``ValueError`` if an entry of an E-step is there in another shape than needed."""
    entry = improved.get(key, None)
    if entry is not None and entry.shape != torch.Size(shape):
        raise ValueError(
            f"the E-step's entry {key!r} must be {needed} = {list(shape)}, got {list(entry.shape)}."
        )
