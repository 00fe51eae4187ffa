"""Docstrings say what the signatures say, and show it."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from typing import Any

import pytest

from mpo_torchrl.trainer import MPOConfig, VMPOConfig
from mpo_torchrl.trainer.config import RunConfig

PACKAGES = ["functional", "critic", "e_step", "dual", "m_step", "loss", "modules", "trainer"]
MODULES = ["targets", "precision"]  # public as a whole
METHOD = ["functional", "critic", "e_step", "dual", "m_step", "loss"]  # what the papers are about
CONTAINERS = ["Fit"]  # hold what others compute


def public_objects(packages: list[str]) -> dict[str, Any]:
    """What the packages list as theirs, and the modules define."""
    found = {}
    for package in packages:
        module = importlib.import_module(f"mpo_torchrl.{package}")
        own = [
            n for n, t in vars(module).items() if getattr(t, "__module__", "") == module.__name__
        ]
        for name in getattr(module, "__all__", [n for n in own if not n.startswith("_")]):
            found[f"{package}.{name}"] = getattr(module, name)
    return found


OBJECTS = public_objects([*PACKAGES, *MODULES])
METHOD_OBJECTS = {
    name: thing
    for name, thing in public_objects(METHOD).items()
    if thing.__name__ not in CONTAINERS
}
FUNCTIONS = {name: thing for name, thing in OBJECTS.items() if inspect.isfunction(thing)}
EVERY_OBJECT = pytest.mark.parametrize("thing", OBJECTS.values(), ids=OBJECTS.keys())
OF_THE_METHOD = pytest.mark.parametrize("thing", METHOD_OBJECTS.values(), ids=METHOD_OBJECTS.keys())
EVERY_FUNCTION = pytest.mark.parametrize("thing", FUNCTIONS.values(), ids=FUNCTIONS.keys())
TITLES = ["Args", "Keyword Args", "Returns", "Yields", "Raises", "Examples", "Attributes"]
SECTION = re.compile(rf"^({'|'.join(TITLES)}):$", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+)(?: \((.+?)\))?: ", re.MULTILINE | re.DOTALL)
DEFAULT = re.compile(r"``([^`]+)`` (?:\(default\)|by default)|(?<!`)\b([\w.-]+) by default")


def sections(thing: Any) -> dict[str, str]:
    """The parts of a docstring by their titles."""
    pieces = SECTION.split(inspect.getdoc(thing) or "")
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def described(thing: Any, *titles: str) -> dict[str, str]:
    """The arguments that a docstring describes, with what it says of each."""
    found = {}
    for title in titles:
        names_and_texts = ENTRY.split(sections(thing).get(title, ""))[1:]  # name, type, text, ...
        found |= dict(zip(names_and_texts[::3], names_and_texts[2::3], strict=True))
    return found


def parameters(thing: Any) -> dict[str, inspect.Parameter]:
    """The arguments but for ``**kwargs``; a dataclass of settings describes them by its fields."""
    if dataclasses.is_dataclass(thing) and issubclass(thing, RunConfig):
        return {}
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return {}
    own = inspect.isclass(thing) and inspect.isfunction(thing.__init__)
    found = dict(inspect.signature(thing.__init__ if own else thing).parameters)
    found.pop("self", None)
    return {name: p for name, p in found.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}


def raised(thing: Any) -> set[str]:
    """The exceptions that a function, or the construction of a class, raises in its own body."""
    function = vars(thing).get("__init__") if inspect.isclass(thing) else inspect.unwrap(thing)
    if function is None or dataclasses.is_dataclass(thing):  # nothing of its own
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raising = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise))
    called = (exc.func if isinstance(exc, ast.Call) else exc for exc in raising)
    return {exc.id for exc in called if isinstance(exc, ast.Name) and exc.id[0].isupper()}


@EVERY_OBJECT
def test_everything_public_is_described_and_shown(thing: Any) -> None:
    assert thing.__doc__ and thing.__doc__.strip()
    assert ">>> " in sections(thing)["Examples"]


@OF_THE_METHOD
def test_what_is_of_the_method_has_its_formula_and_its_source(thing: Any) -> None:
    text = inspect.getdoc(thing) or ""
    assert ".. math::" in text
    assert re.search(r"https://arxiv\.org/abs/\d{4}\.\d{5}|http://incompleteideas\.net", text)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("functional.")])
def test_an_equation_gives_the_shapes_of_its_tensors(name: str) -> None:
    thing = FUNCTIONS[name]
    for argument, text in described(thing, "Args").items():
        if "Tensor" in str(parameters(thing)[argument].annotation):
            assert re.search(r"``\[.*\]``|any shape|:func:", text), argument
    assert re.search(r"``\[.*\]``|shape of", sections(thing)["Returns"])


@EVERY_FUNCTION
def test_what_a_function_returns_is_described(thing: Any) -> None:
    returned = inspect.signature(thing).return_annotation
    described_there = {"Returns", "Yields"} & sections(thing).keys()
    assert bool(described_there) == (returned not in (None, "None"))


@EVERY_OBJECT
def test_what_is_raised_is_described(thing: Any) -> None:
    assert raised(thing) <= described(thing, "Raises").keys()


@pytest.mark.parametrize("config", [MPOConfig, VMPOConfig])
def test_a_setting_is_described_by_its_field(config: type) -> None:
    for field in dataclasses.fields(config):
        assert field.metadata["meaning"], field.name


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
