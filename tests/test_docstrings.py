"""Docstrings say what the signatures say, and show it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from typing import Any

import pytest

PACKAGES = ["", ".functional", ".critic", ".e_step", ".dual", ".m_step", ".loss", ".modules"]


def public_objects() -> dict[str, Any]:
    """What the packages list as theirs; the trainer's settings describe themselves."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(f"mpo_torchrl{package}")
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and not thing.__module__.startswith("mpo_torchrl.trainer"):
                found[f"{thing.__module__}.{name}"] = thing
    return found


OBJECTS = public_objects()
EVERY_OBJECT = pytest.mark.parametrize("thing", OBJECTS.values(), ids=OBJECTS.keys())
SECTION = re.compile(r"^(Args|Keyword Args|Returns|Raises|Examples|Attributes):$", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+) \((.+?)\): ", re.MULTILINE | re.DOTALL)
DEFAULT = re.compile(r"``([^`]+)`` (?:\(default\)|by default)|(?<!`)\b([\w.-]+) by default")


def described(thing: Any, *titles: str) -> dict[str, str]:
    """The arguments that a docstring describes, with what it says of each."""
    pieces = SECTION.split(inspect.getdoc(thing) or "")
    sections = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    found = {}
    for title in titles:
        text = sections.get(title, "")
        names_and_texts = ENTRY.split(text)[1:]  # name, type, what is said, name, ...
        found |= dict(zip(names_and_texts[::3], names_and_texts[2::3], strict=True))
    return found


def parameters(thing: Any) -> dict[str, inspect.Parameter]:
    found = inspect.signature(thing).parameters
    return {name: p for name, p in found.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}


@EVERY_OBJECT
def test_everything_public_is_described_and_shown(thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    assert thing.__doc__ and thing.__doc__.strip()
    assert "Examples:\n" in text and ">>> " in text


@EVERY_OBJECT
def test_every_argument_is_described_once_and_in_order(thing: Any) -> None:
    names = list(described(thing, "Args", "Keyword Args"))
    assert names == list(parameters(thing))


@EVERY_OBJECT
def test_keyword_arguments_are_described_as_such(thing: Any) -> None:
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    names = [name for name, p in parameters(thing).items() if p.kind is keyword_only]
    assert list(described(thing, "Keyword Args")) == names


@EVERY_OBJECT
def test_defaults_that_are_named_are_those_of_the_signature(thing: Any) -> None:
    for name, text in described(thing, "Args", "Keyword Args").items():
        default = parameters(thing)[name].default
        match = DEFAULT.search(text)
        if match is None or default is None:  # None stands for what the text explains
            continue
        named = match.group(1) or match.group(2)
        assert ast.literal_eval(named) == default, name


@pytest.mark.parametrize("name", ["Temperature", "ScalarCritic", "SampledEStep"])
def test_the_test_of_defaults_finds_some(name: str) -> None:
    (thing,) = (t for key, t in OBJECTS.items() if key.endswith(f".{name}"))
    texts = described(thing, "Args", "Keyword Args").values()
    assert any(DEFAULT.search(text) for text in texts)


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
