"""Pictures without styles of their own: what a style attribute says becomes attributes of the same names.

A content security policy that allows no inline style leaves such a picture whole. SVG has an attribute for each of
these properties (SVG 2, "presentation attributes"), which style sheets may still override.
"""

import re

PROPERTIES = frozenset(
    (
        *(
            "clip-rule",
            "dominant-baseline",
            "fill",
            "fill-opacity",
            "fill-rule",
            "opacity",
            "text-anchor",
            "visibility",
        ),
        *("font-family", "font-size", "font-style", "font-weight", "letter-spacing"),
        *("stroke", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit"),
        *("stroke-opacity", "stroke-width"),
    )
)
_STYLE_ELEMENT = re.compile(r"<style\b[^>]*>\s*\*\s*\{([^{}]*)\}\s*</style>")
_STYLE = re.compile(r'\sstyle="([^"]*)"')


def without_styles(svg: str) -> str:
    """The picture with attributes in place of styles; those that no attribute can say (such as max-width) are dropped.

    >>> without_styles('<svg style="max-width: 9px"><path style="fill: none; stroke-width: 2"/></svg>')
    '<svg><path fill="none" stroke-width="2"/></svg>'
    """
    everywhere = "; ".join(_STYLE_ELEMENT.findall(svg))
    head, _, rest = _STYLE_ELEMENT.sub("", svg).partition("<svg")
    return _STYLE.sub(_attributes, f"{head}<svg{_said(everywhere)}{rest}")


def _attributes(match: "re.Match[str]") -> str:
    return _said(match[1])


def _said(style: str) -> str:
    parts = (part.partition(":") for part in style.split(";"))
    said = {name.strip(): value.strip() for name, _, value in parts if name.strip() in PROPERTIES}
    return "".join(f' {name}="{value}"' for name, value in said.items())
