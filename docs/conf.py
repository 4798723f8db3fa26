# Sphinx configuration. Build: nox -s docs
from __future__ import annotations

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx

import onepass

project = "onepass"
author = "The onepass developers"
project_copyright = author
version = release = onepass.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"onepass {release}"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "literal"  # `name` in a docstring is code
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # names and defaults; the Args of the docstring say what each one is
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Reference", "Difference from torch"]

doctest_test_doctest_blocks = "default"


def mark_examples(_app: Sphinx, doctree: nodes.document) -> None:
    """Let the doctest builder run plain Markdown fences that start with a prompt."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") in ("python", "pycon") and block.astext().startswith(">>> "):
            block["testnodetype"] = "doctest"
            block["groups"] = ["default"]
            block["options"] = {}


def setup(app: Sphinx) -> None:
    """Register what is particular to these pages."""
    app.connect("doctree-read", mark_examples)
