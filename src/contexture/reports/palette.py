"""Colours, markers and dashes that tell learners apart, on light and on dark paper and without colour.

Hues after Okabe and Ito (2008), which stay apart for colour-blind readers. Their black is kept for the oracle and for
text; on white their light hues are darkened to a contrast of at least 3 to 1. Every colour of a figure is a CSS custom
property, so that one picture serves both schemes.
"""

from dataclasses import dataclass

from contexture.evaluation.comparison import Comparison

LIGHT = {
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#d8dee5",
    "surface": "#fffffe",
    "heat": "#0072b3",
    "hue-1": "#0072b2",
    "hue-2": "#d55e00",
    "hue-3": "#008f68",
    "hue-4": "#b3568a",
    "hue-5": "#b87c00",
    "hue-6": "#3592cf",
    "hue-7": "#857a00",
}

DARK = {
    "ink": "#e8edf2",
    "muted": "#a5afba",
    "grid": "#333b45",
    "surface": "#11151a",
    "heat": "#2f97dd",
    "hue-1": "#5aa9dc",
    "hue-2": "#f0803c",
    "hue-3": "#2fbf94",
    "hue-4": "#dd8fbb",
    "hue-5": "#e69f00",
    "hue-6": "#8fd0f7",
    "hue-7": "#f0e442",
}

NUM_HUES = 7
CHANCE = "chance"
"""The name under which the level of guessing stands among the labels of a figure."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "*", "d", "8")
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """How one learner is drawn in every figure of a report."""

    hue: str
    marker: str
    dashes: tuple[float, ...]
    width: float
    band: float
    """Opacity of the interval's band: bands of many learners lie over each other."""


def looks(comparison: Comparison) -> dict[str, Look]:
    """A look for every learner: trained ones first in the palette and drawn broader, the oracle in dashed ink."""
    order = sorted(comparison.contestants, key=lambda m: m.kind == "classical")
    found = {
        m.name: Look(
            hue=f"hue-{i % NUM_HUES + 1}",
            marker=_MARKERS[i % len(_MARKERS)],
            dashes=_DASHES[i // NUM_HUES % len(_DASHES)],
            width=1.5 if m.kind == "classical" else 2.6,
            band=(0.07 if len(order) > 4 else 0.16) if m.kind == "classical" else 0.18,
        )
        for i, m in enumerate(order)
    }
    if comparison.oracle is not None:
        found[comparison.oracle] = Look(hue="ink", marker="", dashes=(4, 2.5), width=1.8, band=0.1)
    found[CHANCE] = Look(hue="muted", marker="", dashes=(1, 2.5), width=1.2, band=0.0)
    return found


def custom_properties(palette: dict[str, str]) -> str:
    """The palette as CSS declarations.

    >>> custom_properties({"ink": "#000001"})
    '--ink: #000001;'
    """
    return " ".join(f"--{name}: {value};" for name, value in palette.items())
