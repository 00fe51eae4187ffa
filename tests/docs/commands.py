"""Whether the commands that the pages show would be understood: nothing is trained or installed."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tomllib
from omegaconf import OmegaConf

from mpo_torchrl.trainer import command_line
from tests.docs.markdown import ROOT

OTHER_PROGRAMS = {"apt", "cd", "git", "jupyter", "pre-commit", "ray", "tensorboard"}
"""Programs of others: what they understand is not ours to say."""
PLACEHOLDERS = {"=S": "=0", "=C": "=c51"}
"""What stands for any seed or critic, and one of them."""


class CommandError(AssertionError):
    """A command that would fail."""


def commands(code: str) -> Iterator[list[str]]:
    """The commands of a block, each as its words, without comments and variables."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", ";", "|")), len(words))
            command, words = words[:end], words[end + 1 :]
            while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                command = command[1:]
            if command:
                yield command


def check(command: list[str]) -> None:
    """Raises :class:`CommandError` unless the command would be understood."""
    _check(*command)


@cache
def _check(program: str, *arguments: str) -> None:  # pages show the same commands
    name = Path(program).name
    if name == "make":
        _check_make(list(arguments))
    elif name == "python":
        _check_python(list(arguments))
    elif name == "pip":
        _check_pip(list(arguments))
    elif name not in OTHER_PROGRAMS:
        raise CommandError(f"{name!r} is not among the programs that the pages may show.")


def _check_make(arguments: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert targets is not None
    given = dict(a.split("=", 1) for a in arguments if "=" in a)
    for target in [a for a in arguments if "=" not in a]:
        if target not in targets[1].split():
            raise CommandError(f"make has no target {target!r}.")
        args = shlex.split(given.get("ARGS", ""))
        if target == "train":
            _check_recipe(ROOT / "recipes" / "mpo.py", args)
        elif target == "pytest":
            _check_paths([a for a in args if not a.startswith("-")])
        elif args and target not in ("bench", "notebooks"):
            raise CommandError(f"make {target} takes no ARGS.")


def _check_python(arguments: list[str]) -> None:
    first, *rest = arguments
    if first == "-m":
        if importlib.util.find_spec(rest[0]) is None:
            raise CommandError(f"there is no module {rest[0]!r}.")
        return
    _check_paths([first])
    if Path(first).parts[0] == "recipes":
        _check_recipe(ROOT / first, rest)


def _check_paths(paths: list[str]) -> None:
    missing = [path for path in paths if not (ROOT / path.partition("::")[0]).exists()]
    if missing:
        raise CommandError(f"{missing} are not in the repository.")


def _check_pip(arguments: list[str]) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    ours = re.compile(r"(?:mpo_torchrl|\.)\[(.+)\]")
    matches = [ours.fullmatch(argument) for argument in arguments]
    asked = [extra for match in matches if match for extra in match[1].split(",")]
    unknown = sorted(set(asked) - extras.keys())
    if unknown:
        raise CommandError(f"pyproject.toml has no extras {unknown}.")


def _check_recipe(path: Path, arguments: list[str]) -> None:
    for placeholder, value in PLACEHOLDERS.items():
        arguments = [re.sub(f"{placeholder}$", value, argument) for argument in arguments]
    source = path.read_text()
    if "run_from_command_line" in source:
        _check_settings(path, arguments)
    elif "class Settings" in source:
        settings = runpy.run_path(str(path))["Settings"]
        OmegaConf.merge(OmegaConf.structured(settings), OmegaConf.from_cli(arguments))
    else:
        unknown = [a for a in arguments if a.startswith("--") and f'"{a}"' not in source]
        if unknown:
            raise CommandError(f"{path.name} has no options {unknown}.")


def _check_settings(path: Path, arguments: list[str]) -> None:
    """Hand the command to the recipe, with a training that takes no time."""
    run, configs = command_line.run_from_command_line, []

    def train(config: Any) -> dict[str, float]:
        configs.append(config)
        return {"mean_reward": 0.0}

    def parse(_: Any, *rest: Any) -> None:
        run(train, *rest)

    with (
        patch.object(command_line, "run_from_command_line", parse),
        patch.object(sys, "argv", [str(path), *arguments]),
        patch.dict(os.environ),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as error:
            raise CommandError(f"{path.name} refuses {shlex.join(arguments)}") from error
    if not configs and "--help" not in arguments:
        raise CommandError(f"{path.name} did not train with {shlex.join(arguments)}.")
