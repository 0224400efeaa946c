"""How Sphinx builds the site from these documents; `make docs` runs it, and no page needs the network."""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

from batchscope import __version__

project = "batchscope"
author = "The batchscope authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Links between documents name headings as GitHub does, so that they work there and here.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = False
myst_dmath_allow_digits = False

smartquotes = False  # what is quoted may be typed

# Docstrings put names of code between single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "batchscope"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_math_renderer = "mathml"


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which browsers draw themselves, where MathJax would have to be fetched."""
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))


def _formula(writer: nodes.NodeVisitor, node: nodes.Element) -> None:
    block = isinstance(node, nodes.math_block)
    mathml = tex2mathml(node.astext(), as_block=block)
    writer.body.append(f"<div>{mathml}</div>" if block else mathml)  # type: ignore[attr-defined]
    raise nodes.SkipNode
