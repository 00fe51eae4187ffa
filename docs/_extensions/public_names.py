"""What the reference shows: ``.. public-names:: package`` is a table of what ``__all__`` lists."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.autosummary import Autosummary


class PublicNames(Autosummary):
    """Sphinx's table of names and first sentences, its names taken from the package."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        """The table."""
        (package,) = self.arguments
        names = sorted(importlib.import_module(package).__all__, key=str.lower)
        self.content = StringList([f"~{package}.{name}" for name in names], package)
        return super().run()


def skip(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out what our classes inherit from those of other packages."""
    function = getattr(thing, "fget", None) or getattr(thing, "__func__", thing)
    module = getattr(function, "__module__", None) or "mpo_torchrl"
    return None if module.startswith("mpo_torchrl") else True


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers both."""
    app.connect("autodoc-skip-member", skip)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
