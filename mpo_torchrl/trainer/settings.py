"""What a setting is: its default, its meaning and its valid range side by side.

The checks, ``--help`` and the error texts are all read from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

import torch


class SettingError(ValueError):
    """A setting that is unknown or impossible, in one sentence.

    Examples:
        >>> from mpo_torchrl import MPOConfig
        >>> MPOConfig.from_mapping({"tua": 0.1})
        Traceback (most recent call last):
        ...
        mpo_torchrl.trainer.settings.SettingError: 'tua' is not a setting; the nearest one is 'tau'.
    """


# Annotation -> type and words. A bool is no number here, although Python counts with it.
_KINDS: dict[str, tuple[type, str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
    "list[int]": (list, "a list of whole numbers"),
    "list[float]": (list, "a list of numbers"),
    "list[str]": (list, "a list of names"),
}
_ITEMS: dict[str, type] = {"list[int]": int, "list[float]": float, "list[str]": str}


def setting(
    default: Any,
    meaning: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """One field of a configuration: default, meaning in one line, and the values it may take."""
    limits = {"above": above, "at_least": at_least, "at_most": at_most, "choices": choices}
    metadata = {"default": default, "meaning": meaning, **limits}
    if isinstance(default, list):  # each configuration has a list of its own
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_name(name: str, config_class: type) -> None:
    """Raise a :class:`SettingError` with the nearest valid name unless ``name`` is a setting."""
    names = [field.name for field in dataclasses.fields(config_class)]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise SettingError(f"{name!r} is not a setting; the nearest one is {nearest!r}.")


def valid_range(field: dataclasses.Field[Any]) -> str:
    """The values a setting may take, in words: ``"a number > 0"``, ``"true or false"``, ..."""
    limits = field.metadata
    if limits["choices"]:
        return " or ".join(limits["choices"])
    bounds = ((">", limits["above"]), (">=", limits["at_least"]), ("<=", limits["at_most"]))
    words = [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
    if str(field.type) in _ITEMS and words:
        words = ["each " + " and ".join(words)]
    return " ".join([_KINDS[str(field.type)][1], " and ".join(words)]).strip()


def describe_settings(config_class: type) -> str:
    """All settings that are used, one a line: name, default, meaning and valid range."""
    rows = [
        (
            field.name,
            str(field.metadata["default"]),
            f"{field.metadata['meaning']} [{valid_range(field)}]",
        )
        for field in dataclasses.fields(config_class)
        if field.name not in getattr(config_class, "UNUSED", ())
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"  {name:{widths[0]}}  {default:{widths[1]}}  {text}" for name, default, text in rows
    )


def check_values(config: Any) -> None:
    """Bring every setting into its type; a :class:`SettingError` if one is out of its range."""
    for field in dataclasses.fields(config):
        setattr(config, field.name, _checked(field, getattr(config, field.name)))
    check_device(config.device)


def check_device(device: str) -> None:
    """Raise a :class:`SettingError` unless torch knows the device and finds it here."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise SettingError(
            f"device must be one that torch knows (cpu, cuda, cuda:1), got {device!r}."
        ) from None
    if found.type == "cpu":
        return
    module: Any = getattr(torch, found.type, None)  # torch.cuda, torch.mps, ...
    count = module.device_count() if hasattr(module, "device_count") else 0
    if (found.index or 0) >= count:
        raise SettingError(
            f"device must be available here, got {device!r} and torch finds {count} of its kind."
        )


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """``value`` in the field's type; a :class:`SettingError` names the setting and its range."""
    kind = _KINDS[str(field.type)][0]
    several = kind is list and isinstance(value, (list, tuple))
    if several:
        kind = _ITEMS[str(field.type)]
    values = list(value) if several else [value]
    values = [float(item) if kind is float and type(item) is int else item for item in values]
    found = values if several else values[0]
    if not all(_is_valid(field.metadata, kind, item) for item in values):
        raise SettingError(f"{field.name} must be {valid_range(field)}, got {found!r}.")
    return found


def _is_valid(limits: Mapping[str, Any], kind: Any, value: Any) -> bool:
    if type(value) is not kind or (limits["choices"] and value not in limits["choices"]):
        return False
    return kind in (bool, str) or (
        math.isfinite(value)
        and (limits["above"] is None or value > limits["above"])
        and (limits["at_least"] is None or value >= limits["at_least"])
        and (limits["at_most"] is None or value <= limits["at_most"])
    )
