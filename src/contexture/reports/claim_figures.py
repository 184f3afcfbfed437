"""The picture of a claim: its lines where it has some; otherwise the number, its reference and its control.

Lines are means over seeds within a band from the least to the largest seed, named above them, where no line runs; the
threshold is a dotted rule. The same record gives the same bytes.
"""

import io
import math
from typing import TYPE_CHECKING, Any

from contexture.claims.harness import Line, Result
from contexture.reports import axes as shared
from contexture.reports.figures import text_width
from contexture.reports.numbers import number
from contexture.reports.palette import LIGHT, NUM_HUES
from contexture.reports.svg import DPI, SETTINGS, standalone, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PLOT_HEIGHT = 640, 296
"""Pixels of the whole width, and of the height between the axes' ends."""
_LEFT, _RIGHT, _BELOW, _LINE = 83, 19, 56, 16
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_FLOOR = 1e-18
"""Where a difference that is exactly zero is drawn on a logarithmic axis."""


def element(result: Result, *, name: str = "claim", titled: bool = True) -> str:
    """The picture as an <svg> element for a page, whose ids begin with `name`, titled with the claim or not."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS):
        return to_svg(
            figure(result, titled=titled),
            name=name,
            title=result.sentence,
            description=f"{result.verdict}: {number(result.value)} between {number(result.low)} and "
            f"{number(result.high)}; threshold {number(result.threshold)}",
        )


def svg(result: Result) -> str:
    """The picture as an SVG file's text."""
    return standalone(element(result)) + "\n"


def png(result: Result) -> bytes:
    """The picture as a PNG file's bytes, on white paper."""
    import matplotlib as mpl

    written = io.BytesIO()
    with mpl.rc_context(SETTINGS):
        figure(result).savefig(written, format="png", dpi=2 * DPI, facecolor="white", metadata={"Software": None})
    return written.getvalue()


def figure(result: Result, *, titled: bool = True) -> "Figure":
    """The picture as matplotlib has it."""
    from matplotlib.figure import Figure

    sentence = _wrapped(result.sentence) if titled else ""
    above = 12 + _LINE * (sentence.count("\n") + 1 if titled else 0) + (10 if titled else 0)
    columns, rows = _legend_grid(result)
    height = _BELOW + PLOT_HEIGHT + _LINE * rows + above
    drawn = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    across = (WIDTH - _LEFT - _RIGHT) / WIDTH
    axes = drawn.add_axes((_LEFT / WIDTH, _BELOW / height, across, PLOT_HEIGHT / height))
    if titled:
        drawn.text(0.02, 1 - 12 / height, sentence, color=LIGHT["ink"], fontsize=11, va="top")
    shared.quiet(axes)
    if result.lines:
        _draw_lines(axes, result, columns=columns)
    else:
        _draw_numbers(axes, result)
    return drawn


def _legend_grid(result: Result) -> tuple[int, int]:
    """Columns and rows of the legend above the lines: as many columns as fit beside each other."""
    names = [*result.lines, *(["threshold"] if result.lines and result.axes and result.axes["rule"] else [])]
    if not names:
        return 1, 0
    widest = max(text_width(name, size=10) for name in names) + 56
    columns = max(1, min(len(names), int((WIDTH - _LEFT - _RIGHT) / widest)))
    return columns, math.ceil(len(names) / columns)


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 92))


def _draw_lines(axes: "Axes", result: Result, *, columns: int) -> None:
    about = result.axes or {"x": "", "y": "", "log_x": False, "log_y": False, "rule": False}
    for index, (name, line) in enumerate(result.lines.items()):
        colour = LIGHT[f"hue-{index % NUM_HUES + 1}"]
        mean, low, high = (_drawable(line[part], log=about["log_y"]) for part in ("y", "low", "high"))
        axes.fill_between(line["x"], low, high, color=colour, alpha=0.16, linewidth=0)
        marker = _MARKERS[index % len(_MARKERS)] if len(line["x"]) <= 40 else ""
        axes.plot(line["x"], mean, color=colour, linewidth=2, marker=marker, markersize=5, label=name)
    if about["log_x"]:
        shared.log_x(axes)
    ends = [y for line in result.lines.values() for y in (*line["low"], *line["high"])]
    if about["rule"]:
        ends.append(result.threshold)
        axes.axhline(result.threshold, color=LIGHT["muted"], linewidth=1.4, dashes=(1.5, 2.5), label="threshold")
    bottom, top = shared.padded(_drawable(ends, log=about["log_y"]), log=about["log_y"])
    shared.number_y(axes, bottom, top, log=about["log_y"])
    axes.minorticks_off()
    axes.set_xlabel(about["x"], color=LIGHT["muted"])
    axes.set_ylabel(about["y"], color=LIGHT["muted"], fontsize=11)
    _whole_ticks(axes, list(result.lines.values()))
    axes.legend(
        frameon=False, labelcolor=LIGHT["ink"], fontsize=10, ncols=columns, loc="lower left",
        bbox_to_anchor=(0, 1), borderaxespad=0.1, borderpad=0.1, labelspacing=0.3, columnspacing=1.4,
    )  # fmt: skip


def _whole_ticks(axes: "Axes", lines: list[Line]) -> None:
    """Whole numbers stay whole under the axis."""
    places = sorted({x for line in lines for x in line["x"]})
    if len(places) <= 12 and all(x == int(x) for x in places):
        axes.set_xticks(places, [str(int(x)) for x in places])


def _drawable(values: list[float], *, log: bool) -> list[float]:
    return [max(value, _FLOOR) for value in values] if log else values


def _draw_numbers(axes: "Axes", result: Result) -> None:
    rows: list[tuple[str, Any]] = [
        ("control", result.control),
        ("reference", result.reference),
        ("measured", result),
    ]
    everything = [result.threshold, *(end for _, side in rows for end in (side.low, side.value, side.high))]
    log = shared.use_log(everything)
    for place, (_, side) in enumerate(rows):
        colour = LIGHT[f"hue-{(2, 3, 1)[place]}"]
        axes.plot([side.low, side.high], [place, place], color=colour, linewidth=3)
        axes.plot([side.value], [place], marker="o", markersize=8, color=colour)
    axes.axvline(result.threshold, color=LIGHT["muted"], linewidth=1.4, dashes=(1.5, 2.5))
    low, high = shared.padded([v for v in everything if math.isfinite(v)], log=log, share=0.12)
    if log:
        shared.log_x(axes)
    axes.set_xlim(low, high)
    axes.minorticks_off()
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=LIGHT["grid"], linewidth=1)
    axes.set_xlabel(f"dotted: the threshold, {number(result.threshold)}", color=LIGHT["muted"])
