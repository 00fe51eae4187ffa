"""How Sphinx builds the site: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from mpo_torchrl import __version__  # noqa: E402  the package beside this folder

project = "mpo_torchrl"
author = "The mpo_torchrl authors"
project_copyright = "The mpo_torchrl authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "other_packages",
    "public_names",
    "repository_links",
]
if not tags.has("quick"):  # noqa: F821  Sphinx's; the tests need no pages of the source
    extensions.append("sphinx.ext.viewcode")
exclude_patterns = ["_build", "_extensions"]
nitpicky = True

# Markdown
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]

# The reference: signatures carry the types and their links, docstrings the meaning
autodoc_default_options = {
    "members": True,
    "private-members": "_AcceptedKeys",
    "exclude-members": "default_keys, tensor_keys",
    "show-inheritance": True,
    "member-order": "bysource",
}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_use_keyword = False
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True

# HTML: all files are local, so that the pages need no network either
html_theme = "furo"
html_title = f"mpo_torchrl {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["mathml.css"]
copybutton_prompt_text = ">>> |\\.\\.\\. |\\$ "
copybutton_prompt_is_regexp = True
