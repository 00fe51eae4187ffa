"""The command line of a small program whose settings are a dataclass: ``name=value`` each.

Needs OmegaConf, from the ``recipes`` extra. Training runs have Hydra: see ``command_line``.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torchrl.checkpoint import CheckpointError

from mpo_torchrl.trainer.settings import SettingError

Settings = TypeVar("Settings")


def option(default: Any, meaning: str) -> Any:
    """A field of the settings, with what ``--help`` says of it."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def require_within(name: str, value: int, least: int, most: int | None = None) -> None:
    """Raise a :class:`SettingError` if a number is out of its range."""
    if value < least or (most is not None and value > most):
        limit = f"at least {least}" if most is None else f"between {least} and {most}"
        raise SettingError(f"{name} must be {limit}, got {value}.")


def run_tool(settings_class: type[Settings], run: Callable[[Settings], None], purpose: str) -> None:
    """Call ``run`` with the settings of the command line; ``--help`` prints them.

    A wrong setting ends the program with one sentence on stderr and exit code 2, a file that cannot
    be read or written with one sentence and exit code 1.

    Args:
        settings_class (type): a dataclass whose fields are made with :func:`option`.
        run (callable): the program.
        purpose (str): what ``--help`` says first.
    """
    arguments = sys.argv[1:]
    sys.path.append(os.getcwd())  # where env=module:id is looked for, too
    if {"-h", "--help"} & set(arguments):
        print(_usage(settings_class, purpose))
        return
    try:
        run(read_settings(arguments, settings_class))
    except SettingError as error:
        stop(error, 2)
    except (CheckpointError, OSError) as error:
        stop(error, 1)


def read_settings(arguments: list[str], settings_class: type[Settings]) -> Settings:
    """The settings of a command line of ``name=value``.

    Raises:
        SettingError: if a name is not known, or a value is not of its kind.
    """
    names = [field.name for field in _fields(settings_class)]
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if not equals or name not in names:
            raise SettingError(f"{argument!r} is no setting; write {'=, '.join(names)}=.")
    try:
        defaults = OmegaConf.structured(settings_class)
        given = OmegaConf.merge(defaults, OmegaConf.from_cli(arguments))
    except yaml.YAMLError as error:
        found = " ".join(arguments)
        raise SettingError(
            f"a value in {found!r} cannot be read ({getattr(error, 'problem', error)}); put it in "
            "quotes, such as \"run='@best'\"."
        ) from error
    except OmegaConfBaseException as error:
        raise SettingError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error
    return cast(Settings, OmegaConf.to_object(given))


def _usage(settings_class: type, purpose: str) -> str:
    fields = _fields(settings_class)
    width = max(len(field.name) for field in fields)
    rows = [f"  {f.name:{width}} {f.default!s:15} {f.metadata['meaning']}" for f in fields]
    return "\n".join([purpose.strip(), "", "Settings: name, default, meaning", *rows])


def _fields(settings_class: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(settings_class)


def stop(error: object, code: int) -> NoReturn:
    """End the program with one sentence on stderr."""
    sentence = " ".join(str(error).split())
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(code)
