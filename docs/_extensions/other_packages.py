"""References to other packages: checked against what is installed, linked to its pages by rule.

Sphinx would download an index of each project. Here a reference must name something that can be
imported, which an index cannot say of the installed version, and the build needs no network. A name
that does not exist stays unresolved: a warning, hence an error of ``make docs``.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from importlib import metadata
from typing import Any

import torchrl.objectives
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

TORCHRL = "https://docs.pytorch.org/rl/{version}/reference/generated/{name}.html#{name}"
TENSORDICT = "https://docs.pytorch.org/tensordict/{version}/reference/generated/{name}.html#{name}"
TORCH = "https://docs.pytorch.org/docs/stable/{page}.html#{name}"
PYTHON = "https://docs.python.org/3/library/{page}.html#{name}"
TORCH_PAGES = {
    "torch.Tensor": "tensors",
    "torch.Size": "size",
    "torch.dtype": "tensor_attributes",
    "torch.device": "tensor_attributes",
}


def find(name: str) -> tuple[str, Any] | None:
    """The object of a dotted name, under the shortest name by which its package offers it."""
    *path, last = name.split(".")
    if not path:
        return (last, getattr(builtins, last)) if hasattr(builtins, last) else None
    for depth in range(len(path), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(path[:depth]))
            for part in [*path[depth:], last]:
                thing = getattr(thing, part)
        except (ImportError, AttributeError):
            continue
        return _public_name(path[:depth], [*path[depth:], last], thing), thing
    return None


def _public_name(module: list[str], attribute: list[str], thing: Any) -> str:
    for depth in range(1, len(module)):
        shorter: Any = importlib.import_module(".".join(module[:depth]))
        for part in attribute:
            shorter = getattr(shorter, part, None)
        if shorter is thing:
            return ".".join([*module[:depth], *attribute])
    return ".".join([*module, *attribute])


def page_of(name: str, thing: Any) -> str | None:
    """Where the documentation of its package describes an object."""
    package = name.partition(".")[0]
    if package in ("torchrl", "tensordict"):
        version = ".".join(metadata.version(package).split(".")[:2])  # patches share their pages
        template = TORCHRL if package == "torchrl" else TENSORDICT
        return template.format(version=version, name=name)
    if package == "torch":
        return _torch_page(name, thing)
    module = getattr(thing, "__module__", "") or ""
    if module == "builtins":
        error = inspect.isclass(thing) and issubclass(thing, BaseException)
        number = thing in (bool, int, float, object)
        kind = "exceptions" if error else "functions" if number else "stdtypes"
        return PYTHON.format(page=kind, name=name)
    if package in ("abc", "collections", "contextlib", "numbers", "pathlib", "typing"):
        page = name.rpartition(".")[0]
        return PYTHON.format(page=page, name=name)
    return None


def _torch_page(name: str, thing: Any) -> str:
    if name.startswith("torch.distributions."):
        return TORCH.format(page="distributions", name=f"{thing.__module__}.{thing.__qualname__}")
    return TORCH.format(page=TORCH_PAGES.get(name, f"generated/{name}"), name=name)


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
) -> nodes.Node | None:
    """A link for a Python reference that Sphinx could not answer."""
    if node.get("refdomain") != "py":
        return None
    target, context = node["reftarget"], node.get("py:class")
    found = _member(node.get("py:module"), context, target) or find(target) or _imported(target)
    if found is None:
        return None
    name, thing = found
    if name.startswith("mpo_torchrl."):
        return _own(env, node, contnode, name, thing)
    page = page_of(name, thing)
    if page is None:
        return None
    return nodes.reference("", "", contnode, internal=False, refuri=page, reftitle=name)


def _member(module: str | None, context: str | None, target: str) -> tuple[str, Any] | None:
    """What a class that is being described inherits under this name, with its owner's name."""
    while module and context and "." not in target:
        found = find(f"{module}.{context}")
        for owner in getattr(found and found[1], "__mro__", ()):
            if target in vars(owner):
                return f"{owner.__module__}.{owner.__qualname__}.{target}", vars(owner)[target]
        context = context.rpartition(".")[0]  # a class within a class speaks of the outer one
    return None


def _imported(target: str) -> tuple[str, Any] | None:
    """What our modules import under this name, if they all mean the same by it."""
    first, *rest = target.split(".")
    modules = [module for name, module in sys.modules.items() if name.startswith("mpo_torchrl")]
    things = {id(vars(m)[first]): vars(m)[first] for m in modules if first in vars(m)}
    if not things and hasattr(torchrl.objectives, first):
        # What its own signatures name, which our classes inherit.
        things = {0: getattr(torchrl.objectives, first)}
    if len(things) != 1:
        return None
    (thing,) = things.values()
    if first == "NestedKey":  # a type alias knows no name of its own
        return "tensordict.NestedKey", thing
    home = thing.__name__ if inspect.ismodule(thing) else f"{thing.__module__}.{first}"
    return find(".".join([home, *rest]))


def _own(
    env: BuildEnvironment, node: pending_xref, contnode: nodes.Element, name: str, thing: Any
) -> nodes.Node | None:
    """A link to what is described here under the name of another of our packages."""
    domain = env.get_domain("py")
    last = name.rpartition(".")[2]
    names = [entry for entry in domain.objects if entry.endswith(f".{last}")]  # type: ignore[attr-defined]
    for entry in names:
        if entry == name or (find(entry) or (None, None))[1] is thing:
            role, doc, builder = node["reftype"], node["refdoc"], env.app.builder
            return domain.resolve_xref(env, doc, builder, role, entry, node, contnode)
    return contnode if last.startswith("_") else None  # what is private is named, not described


def setup(app: Sphinx) -> dict[str, bool]:
    """Answers what Sphinx could not."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
