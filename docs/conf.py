# Sphinx configuration. Build: nox -s docs
from __future__ import annotations

import latex2mathml.converter
from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import onepass

project = "onepass"
author = "The onepass developers"
project_copyright = author
version = release = onepass.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
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

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_math_renderer = "mathml"


def mark_examples(_app: Sphinx, doctree: nodes.document) -> None:
    """Let the doctest builder run plain Markdown fences that start with a prompt."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") in ("python", "pycon") and block.astext().startswith(">>> "):
            block["testnodetype"] = "doctest"
            block["groups"] = ["default"]
            block["options"] = {}


def show_formula(translator: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show by themselves: no page waits for a script from elsewhere."""
    latex, display = node.astext(), "inline"
    if isinstance(node, nodes.math_block):
        display = "block"
        if "&" in latex and r"\begin" not in latex:
            latex = rf"\begin{{split}}{latex}\end{{split}}"
    translator.body.append(latex2mathml.converter.convert(latex, display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register what is particular to these pages."""
    formula = (show_formula, None)
    app.add_html_math_renderer("mathml", inline_renderers=formula, block_renderers=formula)
    app.connect("doctree-read", mark_examples)
