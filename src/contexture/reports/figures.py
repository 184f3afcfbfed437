"""The pictures of a comparison, each as SVG text: error against examples, and error against seconds.

Every picture comes wide (labels beside the lines) or narrow (for a telephone, with a legend below). Colours are CSS
custom properties with a light default, so that one picture serves both colour schemes; see `svg` and `palette`.
"""

import math
import statistics
from typing import TYPE_CHECKING, Literal

from contexture.evaluation.comparison import Comparison
from contexture.protocols import Measurement
from contexture.reports import axes as shared
from contexture.reports.palette import CHANCE, LIGHT, Look, looks
from contexture.reports.placement import around, spread
from contexture.reports.svg import DPI, SETTINGS, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["wide", "narrow"]

_WIDTH: dict[Format, int] = {"wide": 760, "narrow": 358}
_LINE = 17
_LONGEST = 26
_CEILING = 4
"""Errors above this many times an ordinary one are cut off, so that one learner's blow-up does not flatten the rest."""


def measured(comparison: Comparison) -> list[Measurement]:
    """The learners that have a value at some size."""
    return [m for m in comparison.measurements if shared.finite(m.value)]


def ceiling(comparison: Comparison) -> float:
    """The largest error that is drawn: four times chance or, where that is not known, what half of the learners reach.

    Infinite where higher is better.
    """
    if not comparison.scoring.lower_is_better:
        return math.inf
    if comparison.chance is not None and comparison.chance > 0:
        return _CEILING * comparison.chance
    columns = zip(*(m.value for m in measured(comparison)), strict=True)
    medians = [statistics.median(known) for known in map(shared.finite, columns) if known]
    return _CEILING * max(medians, default=math.inf)


def leaving(comparison: Comparison) -> list[str]:
    """The learners whose curve leaves the picture at the top."""
    top = ceiling(comparison)
    return [m.name for m in measured(comparison) if max(shared.finite(m.value)) > top]


def learning_curve(comparison: Comparison, *, format: Format = "wide") -> str:
    """Error against the number of examples in context: a line and a band for each learner, the oracle dashed."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS):
        learners, looking = measured(comparison), looks(comparison)
        names = [m.name for m in learners] + ([] if comparison.chance is None else [CHANCE])
        legend = _LINE * math.ceil(len(names) / 2) + 14 if format == "narrow" else 0
        height = (430 if format == "wide" else 330) + legend
        widths = [text_width(label(comparison, name), weight=_weight(comparison, name)) for name in names]
        right = 58 + max(widths, default=0) if format == "wide" else 12
        figure, axes = _figure(format, height, right=right, below=legend)
        _title(axes, comparison)
        log = _set_errors(axes, comparison)
        for index, measurement in enumerate(learners):
            look = looking[measurement.name]
            _draw_curve(axes, measurement, look, gid=f"learner-{index}", front=measurement.name == comparison.oracle)
        shared.number_sizes(axes, comparison.context, most=9 if format == "wide" else 7)
        axes.set_xlabel(comparison.axis, color=LIGHT["muted"], labelpad=6)
        ends = [_last(m) for m in learners]
        if comparison.chance is not None:
            axes.axhline(comparison.chance, color=LIGHT["muted"], linewidth=1.2, dashes=(1, 2.5), zorder=1)
            ends.append((comparison.context[-1], comparison.chance))
        if format == "wide":
            _label_ends(axes, names, ends, comparison)
        else:
            _legend(figure, names, comparison, room=legend / height)
        scale = ", on a logarithmic axis" if log else ""
        return to_svg(
            figure,
            name=f"curve-{format}",
            title=f"{comparison.task}: {comparison.scoring.label} against {comparison.axis}",
            description=f"A line with a band for each of {len(learners)} {comparison.entrants}{scale}; "
            "the table holds the numbers.",
        )


def trade_off(comparison: Comparison, *, format: Format = "wide") -> str:
    """Error after the largest context against seconds per prediction, a point for each learner."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS):
        looking = looks(comparison)
        learners = [m for m in measured(comparison) if math.isfinite(m.value[-1]) and m.seconds > 0]
        figure, axes = _figure(format, 400 if format == "wide" else 380, right=16, below=0)
        _title(axes, comparison)
        log = shared.use_log([m.value[-1] for m in learners])
        ends = [v for m in learners for v in (m.value[-1], m.low[-1], m.high[-1]) if v > 0 or not log]
        shared.quiet(axes)
        shared.number_y(axes, *shared.padded(ends, log=log, share=0.12), log=log)
        times = [m.seconds for m in learners] or [1.0]
        shared.number_seconds(axes, min(times) / 2.2, max(times) * 2.2)
        axes.set_xlabel(
            f"seconds per {'prediction' if comparison.entrants == 'learners' else 'decision'}",
            color=LIGHT["muted"],
            labelpad=6,
        )
        for index, measurement in enumerate(learners):
            _draw_point(axes, measurement, looking[measurement.name], gid=f"learner-{index}")
        _label_points(axes, learners, comparison)
        return to_svg(
            figure,
            name=f"trade-off-{format}",
            title=f"{comparison.task}: {comparison.scoring.label} against seconds",
            description=f"A point for each of {len(learners)} {comparison.entrants}; the table holds the numbers.",
        )


def _figure(format: Format, height: int, *, right: float, below: float) -> tuple["Figure", "Axes"]:
    """A figure of that height in pixels, with room to the right of and below its one pair of axes."""
    from matplotlib.figure import Figure

    width = _WIDTH[format]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    left, bottom, top = 52, 48 + below, 34
    area = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(area)


def _title(axes: "Axes", comparison: Comparison) -> None:
    metric = comparison.scoring
    better = {"lower": "lower is better", "higher": "higher is better", "level": f"should be {metric.level}"}
    axes.text(
        -40 / axes.bbox.width,
        1 + 14 / axes.bbox.height,
        f"{metric.label} ({better[metric.direction]})",
        transform=axes.transAxes,
        color=LIGHT["ink"],
    )


def _set_errors(axes: "Axes", comparison: Comparison) -> bool:
    """Scale the y axis to the values drawn; True if it is logarithmic."""
    top = ceiling(comparison)
    values = [v for m in measured(comparison) for v in shared.finite(m.value)]
    drawn = [min(v, top) for v in values]
    if comparison.chance is not None and drawn and comparison.chance < 1.6 * max(drawn):
        drawn.append(comparison.chance)
    log = shared.use_log(drawn)
    low, high = shared.padded(drawn, log=log)
    shared.quiet(axes)
    shared.number_y(axes, low, min(high, top), log=log)
    return log


def _draw_curve(axes: "Axes", measurement: Measurement, look: Look, *, gid: str, front: bool) -> None:
    colour = LIGHT[look.hue]
    axes.fill_between(
        measurement.context,
        measurement.low,
        measurement.high,
        color=colour,
        alpha=look.band,
        linewidth=0,
        gid=f"{gid}.band",
    )
    axes.plot(
        measurement.context,
        measurement.value,
        color=colour,
        linewidth=look.width,
        marker=look.marker if len(measurement.context) <= 14 else "",
        markersize=5.5,
        markeredgewidth=0,
        dashes=look.dashes or (None, None),
        solid_capstyle="round",
        zorder=3 if front else 2,
        gid=f"{gid}.line",
    )


def label(comparison: Comparison, name: str) -> str:
    """The learner's name as it stands in figures: cut where it would push the picture aside."""
    shown = comparison.shown(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _weight(comparison: Comparison, name: str) -> str:
    """Bold for learners that were trained; the others are references."""
    trained = {m.name for m in comparison.measurements if m.kind != "classical"}
    return "bold" if name in trained else "normal"


def text_width(text: str, *, size: float = 12, weight: str = "normal") -> float:
    """The width of a line of text in pixels, in the font that figures are laid out with."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size, weight=weight)
    width: float = TextToPath().get_text_width_height_descent(text, font, False)[0]
    return width


def _label_ends(axes: "Axes", names: list[str], ends: list[tuple[float, float]], comparison: Comparison) -> None:
    """Name each line where it ends, the names pushed apart and tied to their line by a thin leader."""
    width, height = axes.bbox.width, axes.bbox.height
    looking = looks(comparison)
    places = [axes.transAxes.inverted().transform(axes.transData.transform(end)) for end in ends]
    heights = [min(max(place[1], 0.0), 1.0) * height for place in places]
    spaced = spread(heights, gap=_LINE, low=0, high=height)
    for index, (name, place, start, end) in enumerate(zip(names, places, heights, spaced, strict=True)):
        axes.plot(
            [place[0] + 3 / width, 1 + 14 / width],
            [start / height, end / height],
            transform=axes.transAxes,
            color=LIGHT[looking[name].hue],
            linewidth=0.8,
            alpha=0.7,
            clip_on=False,
            gid=f"learner-{index}.leader",
        )
        at = (1 + 16 / width, end / height)
        _named_sample(axes, name, comparison, at, gid=f"learner-{index}")


def _last(measurement: Measurement) -> tuple[float, float]:
    known = [(n, v) for n, v in zip(measurement.context, measurement.value, strict=True) if math.isfinite(v)]
    return known[-1]


def _named_sample(axes: "Axes", name: str, comparison: Comparison, at: tuple[float, float], *, gid: str) -> None:
    """A short piece of the line with its marker, and the name beside it; `at` in shares of the axes."""
    (x, y), reach, look = at, 24 / axes.bbox.width, looks(comparison)[name]
    style = {"color": LIGHT[look.hue], "transform": axes.transAxes, "clip_on": False, "gid": f"{gid}.sample"}
    axes.plot([x, x + reach], [y, y], linewidth=look.width, dashes=look.dashes or (None, None), **style)  # type: ignore[arg-type]
    if look.marker:
        axes.plot([x + reach / 2], [y], marker=look.marker, markersize=6, markeredgewidth=0, **style)  # type: ignore[arg-type]
    axes.text(
        x + 30 / axes.bbox.width,
        y,
        label(comparison, name),
        va="center_baseline",
        transform=axes.transAxes,
        color=LIGHT["ink"],
        fontweight=_weight(comparison, name),
        gid=f"{gid}.name",
    )


def _legend(figure: "Figure", names: list[str], comparison: Comparison, *, room: float) -> None:
    """Names in two columns in the lowest `room` of the figure."""
    below = figure.add_axes((0, 0, 1, room))
    below.set_axis_off()
    below.set_xlim(0, 1)
    below.set_ylim(0, 1)
    rows = math.ceil(len(names) / 2)
    for index, name in enumerate(names):
        at = (0.02 + 0.5 * (index // rows), 1 - (index % rows + 0.6) * _LINE / below.bbox.height)
        _named_sample(below, name, comparison, at, gid=f"learner-{index}")


def _draw_point(axes: "Axes", measurement: Measurement, look: Look, *, gid: str) -> None:
    colour, x = LIGHT[look.hue], measurement.seconds
    if math.isfinite(measurement.low[-1]):
        axes.plot([x, x], [measurement.low[-1], measurement.high[-1]], color=colour, linewidth=1.5, gid=f"{gid}.bar")
    axes.plot(
        [x],
        [measurement.value[-1]],
        marker=look.marker or "o",
        markersize=9,
        markeredgewidth=1.2 if look.marker else 1.8,
        markeredgecolor=LIGHT["surface"] if look.marker else colour,
        markerfacecolor=colour if look.marker else LIGHT["surface"],
        color=colour,
        gid=f"{gid}.point",
    )


def _label_points(axes: "Axes", learners: list[Measurement], comparison: Comparison) -> None:
    """Name each point beside it, where the name covers least."""
    pixels = [tuple(axes.transData.transform((m.seconds, m.value[-1]))) for m in learners]
    bars = []
    for measurement, (x, _) in zip(learners, pixels, strict=True):
        if math.isfinite(measurement.low[-1]):
            ends = [axes.transData.transform((measurement.seconds, v))[1] for v in _ends(axes, measurement)]
            bars.append((x - 6, ends[0], x + 6, ends[1]))
    texts = [(label(comparison, m.name), _weight(comparison, m.name)) for m in learners]
    area = axes.bbox
    boxes = around(
        pixels,
        [(text_width(shown, size=11.5, weight=weight) + 6, 14) for shown, weight in texts],
        obstacles=bars,
        area=(area.x0 - 30, area.y0 + 2, area.x1 + 10, area.y1 + 6),
    )
    inverse = axes.transAxes.inverted()
    for index, ((shown, weight), point, box) in enumerate(zip(texts, pixels, boxes, strict=True)):
        x, y = inverse.transform((box[0] + 3, (box[1] + box[3]) / 2))
        near = (min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3]))
        if math.dist(near, point) > 14:
            xs, ys = zip(*(inverse.transform(end) for end in (point, near)), strict=True)
            axes.plot(xs, ys, transform=axes.transAxes, color=LIGHT["muted"], linewidth=0.7, zorder=1)
        axes.text(
            x,
            y,
            shown,
            transform=axes.transAxes,
            va="center_baseline",
            fontsize=11.5,
            color=LIGHT["ink"],
            fontweight=weight,
            gid=f"learner-{index}.name",
        )


def _ends(axes: "Axes", measurement: Measurement) -> tuple[float, float]:
    low, high = axes.get_ylim()
    return max(measurement.low[-1], low), min(measurement.high[-1], high)
