"""What the reference shows: ``.. public-names:: package`` is a table of what ``__all__`` lists."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.autosummary import Autosummary
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature


class PublicNames(Autosummary):
    """Sphinx's table of names and first sentences, its names taken from the package."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        """The table."""
        (package,) = self.arguments
        self.env.ref_context["py:module"] = package  # where names are, in first sentences as well
        names = sorted(importlib.import_module(package).__all__, key=str.lower)
        self.content = StringList(names, package)
        return super().run()


def skip(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out what our classes inherit from those of other packages."""
    function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
    module = getattr(function, "__module__", None) or "mpo_torchrl"
    return None if module.startswith("mpo_torchrl") else True


def sign(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, given: str, returned: str
) -> tuple[str, str] | None:
    """The arguments of a class, where TorchRL's metaclasses hide them behind ``*args``."""
    if "<factory>" in (given or ""):  # of a dataclass: no Python, so that Sphinx cannot read it
        return given.replace("<factory>", "..."), returned
    if what != "class" or not (given or "").startswith("(*args"):
        return None
    signature = signature_of(thing.__init__)
    own = [p for p in signature.parameters.values() if p.name != "self"]
    return stringify_signature(signature.replace(parameters=own), show_return_annotation=False), ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the table, and what keeps the reference to our own."""
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", sign)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
