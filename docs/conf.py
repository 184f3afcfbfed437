"""Sphinx configuration."""

from contexture import __version__

project = "Contexture"
author = "The Contexture maintainers"
copyright = "2026, the Contexture maintainers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Contexture"
html_static_path: list[str] = []
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# The model cards stand beside the weights and link to files there, which are no pages.
suppress_warnings = ["myst.xref_missing"]
