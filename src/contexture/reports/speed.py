"""The speed of mixers as a table for the terminal, as Markdown for a page, and as a picture.

A row for each mixer, the fastest at the longest length first: milliseconds of forward and backward at each length, how
they grow with it, one decoded token, state and peak memory at the longest length, and the time over that of softmax
attention.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from contexture.evaluation.speed import Speed, Timing
from contexture.reports import axes as shared
from contexture.reports.numbers import MISSING, seconds, size
from contexture.reports.palette import LIGHT
from contexture.reports.svg import DPI, SETTINGS, to_svg

if TYPE_CHECKING:
    from rich.console import Console

BASELINE = "softmax"
_ROW = 17


def ordered(speed: Speed, dtype: str) -> list[str]:
    """Mixers from the fastest at the longest length to the slowest; those not measured there last, by name."""

    def rank(name: str) -> tuple[int, float, str]:
        known = [t for t in _of(speed, name, dtype) if t.forward_backward is not None]
        last = known[-1] if known else None
        return (-last.length, last.forward_backward or 0.0, name) if last is not None else (1, 0.0, name)

    return sorted({t.name for t in speed.timings if t.dtype == dtype}, key=rank)


def _of(speed: Speed, name: str, dtype: str) -> list[Timing]:
    return [t for t in speed.timings if t.name == name and t.dtype == dtype]


def grid(speed: Speed, dtype: str) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of texts for each mixer."""
    lengths = [f"{n:,}" for n in speed.lengths]
    headings = ["mixer", *lengths, "growth", f"x {BASELINE}", "token", "token x", "state", "peak"]
    base = next(iter(_known(speed, BASELINE, dtype)[-1:]), None)
    rows = []
    for name in ordered(speed, dtype):
        known = _known(speed, name, dtype)
        times = {t.length: t.forward_backward for t in known}
        last = known[-1] if known else None
        over = MISSING
        if last is not None and base is not None and last.length == base.length:
            over = f"{(last.forward_backward or 0) / (base.forward_backward or 1):.2f}"
        rows.append(
            [
                name,
                *(seconds(times[n] or 0.0) if n in times else MISSING for n in speed.lengths),
                _growth(known),
                over,
                MISSING if last is None else seconds(last.decode or 0.0),
                _decode_ratio(known),
                MISSING if last is None else size(last.state_bytes or 0),
                MISSING if last is None else size(last.peak_bytes or 0),
            ]
        )
    return headings, rows


def _known(speed: Speed, name: str, dtype: str) -> list[Timing]:
    return [t for t in _of(speed, name, dtype) if t.forward_backward is not None]


def _growth(known: Sequence[Timing]) -> str:
    """The power of length with which the time grew from the last length but one to the last."""
    if len(known) < 2:
        return MISSING
    before, last = known[-2:]
    times = (last.forward_backward or math.nan) / (before.forward_backward or math.nan)
    return f"{math.log(times) / math.log(last.length / before.length):.2f}"


def _decode_ratio(known: Sequence[Timing]) -> str:
    """A decoded token's time after the longest sequence over that after the shortest."""
    if len(known) < 2:
        return MISSING
    return f"{(known[-1].decode or math.nan) / (known[0].decode or math.nan):.2f}"


def legend(speed: Speed, dtype: str) -> str:
    """What the numbers are, in one sentence."""
    shape = speed.shape
    return (
        f"Forward and backward of one layer in {dtype}, batch {shape.batch}, {shape.num_heads} heads of {shape.dim}, "
        f"{speed.threads} thread{'s' if speed.threads > 1 else ''} ({speed.clock} time); growth: the power of length "
        "with which that grew between the two longest; token: one decoded token after the longest sequence; token x: "
        "that over one after the shortest; state: bytes kept for one sequence then; peak: the most tensor memory held"
    )


def remarks(speed: Speed, dtype: str) -> list[str]:
    """What was not measured, and why."""
    return [f"left out: {t.name} at {t.length:,} ({t.reason})" for t in speed.timings if t.reason and t.dtype == dtype]


def print_speed(speed: Speed, console: "Console") -> None:
    """Print a table for each dtype."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for dtype in speed.dtypes:
        headings, rows = grid(speed, dtype)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title=dtype, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "mixer" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        for line in (legend(speed, dtype), *remarks(speed, dtype)):
            console.print(Text(line), soft_wrap=not console.is_terminal)


def markdown(speed: Speed, dtype: str) -> str:
    """The table for a page of the documentation."""
    headings, rows = grid(speed, dtype)
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(speed: Speed) -> str:
    """The tables of all dtypes with what their numbers are, the machine and the command, to be included in a page."""
    machine = speed.environment
    parts = [f"{machine['processor']}, torch {machine['torch']}; `{speed.command}`\n"]
    for dtype in speed.dtypes:
        parts.append(f"{markdown(speed, dtype)}\n\n{legend(speed, dtype)}.\n")
        parts += [f"- {line}" for line in remarks(speed, dtype)]
    return "\n".join(parts)


def figure(speed: Speed, *, dtype: str = "fp32") -> str:
    """A row for each mixer and a dot for each length, on a logarithmic axis of seconds."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        names = [name for name in ordered(speed, dtype) if _known(speed, name, dtype)]
        width, height = 760, 78 + _ROW * len(names)
        drawn = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        left, bottom, top = 190, 44, 34
        area = (left / width, bottom / height, (width - left - 16) / width, (height - bottom - top) / height)
        axes = drawn.add_axes(area)
        times = [t.forward_backward or 0.0 for name in names for t in _known(speed, name, dtype)]
        shared.quiet(axes)
        shared.number_seconds(axes, min(times) / 1.5, max(times) * 1.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names)
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set_color(LIGHT["ink"])
            label.set_fontsize(11)
            label.set_fontweight("bold" if name == BASELINE else "normal")
        for row, name in enumerate(names):
            known = _known(speed, name, dtype)
            axes.plot([t.forward_backward or 0 for t in known], [row] * len(known), color=LIGHT["grid"], zorder=1)
        for index, length in enumerate(speed.lengths):
            _dots(axes, speed, names, length, dtype, index)
        axes.set_xlabel("seconds, forward and backward", color=LIGHT["muted"], labelpad=6)
        return to_svg(
            drawn,
            name="speed",
            title=f"Seconds of forward and backward in {dtype} for {len(names)} mixers",
            description=legend(speed, dtype),
        )


_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def _dots(axes: "Axes", speed: Speed, names: Sequence[str], length: int, dtype: str, index: int) -> None:
    """The dots of one length, and its name above the picture."""
    found = [
        (t.forward_backward or 0.0, row)
        for row, name in enumerate(names)
        for t in _known(speed, name, dtype)
        if t.length == length
    ]
    style = {"color": LIGHT[f"hue-{index % 7 + 1}"], "marker": _MARKERS[index % len(_MARKERS)], "linestyle": "none"}
    axes.plot(*zip(*found, strict=True), markersize=6.5, markeredgewidth=0, zorder=2, **style)  # type: ignore[arg-type]
    x, y = 0.02 + 0.19 * index, 1 + 16 / axes.bbox.height
    axes.plot([x], [y], transform=axes.transAxes, clip_on=False, markersize=6.5, markeredgewidth=0, **style)  # type: ignore[arg-type]
    axes.text(x + 0.018, y, f"{length:,} tokens", transform=axes.transAxes, va="center_baseline", color=LIGHT["ink"])


if TYPE_CHECKING:
    from matplotlib.axes import Axes
