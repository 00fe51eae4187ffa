"""Errors that a person can read."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from tensordict import NestedKey


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
