"""From a matplotlib figure to SVG text that belongs in a page: theme colours, real text, ids of its own, a description.

The same figure gives the same bytes: ids come from a fixed salt, and there is no date.
"""

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

from contexture.reports.palette import DARK, LIGHT, custom_properties

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "contexture",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "path.simplify": False,
    "axes.unicode_minus": False,
}
"""What matplotlib needs while a figure is built and drawn; names are shown as they are, never as formulas."""

DPI = 72
"""At this resolution a point is a CSS pixel."""

_FONT = re.compile(r"font: (?:(\d+|bold) )?([\d.]+)px [^;\"]+")
_GROUP_OF_A_LEARNER = re.compile(r'<g id="learner-(\d+)(?:\.[^"]*)?">')


def to_svg(figure: "Figure", *, name: str, title: str, description: str) -> str:
    """The figure as an <svg> element whose colours are `var(--...)`; title and description are for screen readers."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = _GROUP_OF_A_LEARNER.sub(r'<g class="learner l\1">', body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(xlink:href=")#', rf"\1#{name}-", body).replace("url(#", f"url(#{name}-")
    body = _FONT.sub(_font, body)
    for role, colour in LIGHT.items():
        body = body.replace(colour, f"var(--{role}, {colour})")
    return _describe(body, name, title, description)


def _font(match: "re.Match[str]") -> str:
    weight = f"font-weight: {match[1]}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"


def _describe(body: str, name: str, title: str, description: str) -> str:
    head, _, rest = body.partition(">")
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    width = re.search(r'viewBox="0 0 ([\d.]+)', head)
    assert width is not None
    return (
        f'{head} class="figure" role="img" aria-labelledby="{name}-title {name}-description" '
        f'style="max-width: {float(width[1]):g}px">\n'
        f'<title id="{name}-title">{escape(title)}</title>\n'
        f'<desc id="{name}-description">{escape(description)}</desc>{rest}'
    )


def standalone(svg: str) -> str:
    """The element as a file of its own, on transparent ground, in the reader's colour scheme."""
    style = (
        f"<style>svg {{ {custom_properties(LIGHT)} font-family: system-ui, sans-serif; }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {custom_properties(DARK)} }} }}</style>"
    )
    head, _, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>\n{style}{rest}'
