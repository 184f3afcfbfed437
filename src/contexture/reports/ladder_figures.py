"""The pictures of the recall ladder, each as SVG text: mean accuracy against bytes of state, and against seconds.

One point for each mixer with a result on every rung; mixers whose state grows with time have a hue and a marker of
their own. Every picture comes wide or narrow, in the colours of `palette`.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from contexture.evaluation.ladder.ladder import Ladder, Standing
from contexture.reports import axes as shared
from contexture.reports.figures import Format, text_width
from contexture.reports.numbers import size
from contexture.reports.palette import LIGHT
from contexture.reports.placement import around
from contexture.reports.svg import DPI, SETTINGS, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = {"constant": ("hue-1", "o", "state of constant size"), "grows": ("hue-2", "s", "state that grows with time")}
_NO_STATE = ("hue-3", "D", "no state")
_WIDTH: dict[Format, int] = {"wide": 760, "narrow": 358}
_LONGEST = 36


def accuracy_by_state(ladder: Ladder, match: str, *, format: Format = "wide") -> str:
    """Mean accuracy against what is kept after the longest rung."""
    return _scatter(
        ladder,
        match,
        of=lambda one: float(one.state_bytes),
        label="bytes of state at the longest rung",
        ticks=_number_bytes,
        name="state",
        format=format,
    )


def accuracy_by_seconds(ladder: Ladder, match: str, *, format: Format = "wide") -> str:
    """Mean accuracy against the processor time of one training."""
    return _scatter(
        ladder,
        match,
        of=lambda one: one.seconds,
        label="processor seconds of one training, mean over rungs",
        ticks=shared.number_seconds,
        name="seconds",
        format=format,
    )


def drawn(ladder: Ladder, match: str) -> list[Standing]:
    """The mixers that have a point: those with a result on every rung."""
    return [one for one in ladder.standings(match) if math.isfinite(one.mean)]


def _scatter(
    ladder: Ladder,
    match: str,
    *,
    of: Callable[[Standing], float],
    label: str,
    ticks: "Callable[[Axes, float, float], None]",
    name: str,
    format: Format,
) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    standings = drawn(ladder, match)
    with mpl.rc_context(SETTINGS):
        width = _WIDTH[format]
        height = min(720, 400 + 8 * len(standings)) if format == "wide" else min(900, 380 + 14 * len(standings))
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        left, right, bottom, top = 52, 16, 50, 52
        area = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
        axes = figure.add_axes(area)
        shared.quiet(axes)
        shared.number_y(axes, -0.02, 1.04, log=False)
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
        values = [max(of(one), 1e-9) for one in standings] or [1.0]
        ticks(axes, min(values) / 1.8, max(values) * 1.8)
        axes.set_xlabel(label, color=LIGHT["muted"], labelpad=6)
        _heading(axes, standings)
        guess = sum(1 - value for value in ladder.chance.values()) / max(1, len(ladder.chance))
        axes.axhline(guess, color=LIGHT["muted"], linewidth=1.2, dashes=(1, 2.5), zorder=1)
        axes.text(
            0.995, guess + 0.008, "chance", transform=axes.get_yaxis_transform(), color=LIGHT["muted"], ha="right"
        )
        for index, (one, value) in enumerate(zip(standings, values, strict=True)):
            _point(axes, one, value, index)
        _names(axes, standings, values)
        return to_svg(
            figure,
            name=f"{name}-{match}-{format}",
            title=f"recall ladder: mean accuracy against {label}",
            description=f"A point for each of {len(standings)} mixers; the table holds the numbers.",
        )


def _look(standing: Standing) -> tuple[str, str, str]:
    return LOOKS.get(standing.entrant.card.state, _NO_STATE)


def _heading(axes: "Axes", standings: Sequence[Standing]) -> None:
    """What is drawn upwards, and below it the key of the markers that occur."""
    width, height = axes.bbox.width, axes.bbox.height
    axes.text(
        -40 / width, 1 + 32 / height, "accuracy, mean over rungs (higher is better)",
        transform=axes.transAxes, color=LIGHT["ink"],
    )  # fmt: skip
    x = -34.0
    for hue, marker, words in dict.fromkeys(_look(one) for one in standings):
        axes.plot(
            [x / width], [1 + 17 / height], marker=marker, markersize=7, markeredgewidth=0,
            color=LIGHT[hue], transform=axes.transAxes, clip_on=False,
        )  # fmt: skip
        axes.text(
            (x + 9) / width, 1 + 17 / height, words,
            transform=axes.transAxes, va="center_baseline", color=LIGHT["muted"], fontsize=11,
        )  # fmt: skip
        x += 9 + text_width(words, size=11) + 18


def _point(axes: "Axes", standing: Standing, value: float, index: int) -> None:
    hue, marker, _ = _look(standing)
    axes.plot(
        [value],
        [standing.mean],
        marker=marker,
        markersize=8,
        markeredgewidth=1,
        markeredgecolor=LIGHT["surface"],
        color=LIGHT[hue],
        gid=f"learner-{index}.point",
        zorder=3,
    )


def _names(axes: "Axes", standings: Sequence[Standing], values: Sequence[float]) -> None:
    """Name each point beside it, where the name covers least, with a thin line to it where it had to move away."""
    texts = [_cut(one.entrant.label) for one in standings]
    pixels = [tuple(axes.transData.transform(at)) for at in zip(values, (one.mean for one in standings), strict=True)]
    area = axes.bbox
    boxes = around(
        pixels,
        [(text_width(text, size=11) + 6, 13) for text in texts],
        obstacles=[],
        area=(area.x0 - 30, area.y0 + 2, area.x1 + 10, area.y1 + 4),
    )
    inverse = axes.transAxes.inverted()
    for index, (text, point, box) in enumerate(zip(texts, pixels, boxes, strict=True)):
        x, y = inverse.transform((box[0] + 3, (box[1] + box[3]) / 2))
        near = (min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3]))
        if math.dist(near, point) > 13:
            xs, ys = zip(*(inverse.transform(end) for end in (point, near)), strict=True)
            axes.plot(xs, ys, transform=axes.transAxes, color=LIGHT["muted"], linewidth=0.7, zorder=1)
        axes.text(
            x, y, text, transform=axes.transAxes, va="center_baseline", fontsize=11, color=LIGHT["ink"],
            gid=f"learner-{index}.name",
        )  # fmt: skip


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _number_bytes(axes: "Axes", low: float, high: float) -> None:
    """Set the x axis to bytes, with ticks at powers of two (or four, where those would be many)."""
    axes.set_xscale("log")
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    step = max(1, math.ceil(len(powers) / 7))
    ticks = [2**power for power in powers if power % step == 0]
    axes.set_xticks(ticks, [size(tick).replace(".0 ", " ") for tick in ticks])
    axes.set_xlim(low, high)
    axes.minorticks_off()
