"""Links from a page to what lies in the repository beside ``docs/``.

Files are offered for download, as MyST does by itself. The folder of a part leads to its page of
the reference, and so do its files where a page of the root is shown; any other folder is shown by
name. The links stay those that a reader of the repository can follow.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from myst_parser.sphinx_ext.myst_refs import MystReferenceResolver
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode


class RepositoryLinks(SphinxPostTransform):
    """Answers what MyST would look for among the pages."""

    default_priority = MystReferenceResolver.default_priority - 1

    def run(self, **kwargs: object) -> None:
        """Goes through the unresolved links of a page."""
        for node in list(self.document.findall(pending_xref)):
            if node.get("reftype") == "myst":
                self._answer(node)

    def _answer(self, node: pending_xref) -> None:
        target = node["reftarget"]
        docs = Path(self.env.srcdir)
        here = docs / Path(self.env.docname).parent
        # A page may be included from the root of the repository, with links from there.
        path = next((p for p in (here / target, docs.parent / target) if p.exists()), None)
        if path is None:
            return
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        page = f"api/{folder.name}"
        content = [child.deepcopy() for child in node.children]
        if page in self.env.all_docs:
            builder = self.app.builder
            node.replace_self(make_refnode(builder, self.env.docname, page, "", content))
        else:
            node.replace_self(nodes.inline("", "", *content))


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the transform."""
    app.add_post_transform(RepositoryLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
