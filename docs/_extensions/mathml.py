"""Equations as MathML: browsers draw them themselves, without a script and without a network.

Docutils translates the TeX; what it does not know is a warning, hence an error of ``make docs``.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def translate(tex: str, node: nodes.Node, as_block: bool) -> str:
    """One formula; in place of one that cannot be translated its TeX, and a warning."""
    # Docutils has the sizes with a side (\bigl, \bigr) only, and \textstyle only in a group.
    known = re.sub(r"\\(big|Big)\s*(\\?[\])}]|\\rVert)", r"\\\1r\2", tex)
    known = re.sub(r"\\(big|Big)(?![a-zA-Z])", r"\\\1l", known)
    known = re.sub(r"\\textstyle\s*(\\[a-z]+)", r"{\\textstyle\1}", known)
    try:
        return tex2mathml(known, as_block=as_block)
    except MathError as error:
        logger.warning("%s in the formula %r", error, tex, location=node)
        return nodes.literal("", tex).astext()


def visit_math(self: Any, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(translate(node.astext(), node, as_block=False))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """A formula of its own."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(translate(node.astext(), node, as_block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the renderer ``mathml``."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
