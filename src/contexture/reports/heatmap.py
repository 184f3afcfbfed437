"""Distances of learners to reference algorithms as a grid of numbers: the nearer, the stronger the tint."""

import math
import statistics

from contexture.evaluation.comparison import Comparison
from contexture.reports.axes import finite
from contexture.reports.figures import label, text_width
from contexture.reports.palette import LIGHT
from contexture.reports.svg import DPI, SETTINGS, to_svg

_CELL_WIDTH, _CELL_HEIGHT = 54, 26
_FARTHEST, _NEAREST = 1.0, 1e-3


def typical(comparison: Comparison, learner: str, reference: str) -> float:
    """The median over context sizes of the distance; NaN where there is none."""
    known = finite(comparison.distances.get(learner, {}).get(reference, ()))
    return statistics.median(known) if known else math.nan


def short(value: float) -> str:
    """A distance in at most five characters.

    >>> short(0.00004), short(0.0213), short(0.456), short(12.34), short(12345.0)
    ('<.001', '.021', '.456', '12.3', '1e4')
    """
    if not math.isfinite(value):
        return ""
    if value < 1e-3:
        return "<.001" if value > 0 else "0"
    if value < 0.9995:
        return f"{value:.3f}".lstrip("0")
    if value < 1000:
        return f"{value:.3g}"
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def heat_map(comparison: Comparison) -> str:
    """A row for each learner, a column for each reference; each row's nearest is bold."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = list(comparison.distances)
    referred = {reference for row in comparison.distances.values() for reference in row}
    columns = [m.name for m in comparison.measurements if m.name in referred]
    with mpl.rc_context(SETTINGS):
        left = 16 + max((text_width(label(comparison, name)) for name in rows), default=0)
        widths = [text_width(label(comparison, name)) for name in columns]
        top = 16 + 0.75 * max(widths, default=0)
        right = max((0.8 * w - _CELL_WIDTH * (len(columns) - i - 0.5) for i, w in enumerate(widths)), default=0) + 4
        width = left + _CELL_WIDTH * len(columns) + right
        height = top + _CELL_HEIGHT * len(rows) + 4
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for i, reference in enumerate(columns):
            axes.text(
                left + _CELL_WIDTH * (i + 0.45),
                top - 6,
                label(comparison, reference),
                rotation=40,
                rotation_mode="anchor",
                color=LIGHT["ink"],
            )
        for j, learner in enumerate(rows):
            y = top + _CELL_HEIGHT * (j + 0.5)
            axes.text(left - 8, y, label(comparison, learner), ha="right", va="center_baseline", color=LIGHT["ink"])
            values = {reference: typical(comparison, learner, reference) for reference in columns}
            nearest = min((v for v in values.values() if math.isfinite(v)), default=math.nan)
            for i, reference in enumerate(columns):
                value = values[reference]
                x = left + _CELL_WIDTH * i
                axes.add_patch(
                    Rectangle(
                        (x + 1, y - _CELL_HEIGHT / 2 + 1),
                        _CELL_WIDTH - 2,
                        _CELL_HEIGHT - 2,
                        facecolor=LIGHT["heat"],
                        alpha=_tint(value),
                        linewidth=0,
                    )
                )
                axes.text(
                    x + _CELL_WIDTH / 2,
                    y,
                    short(value),
                    ha="center",
                    va="center_baseline",
                    color=LIGHT["ink"],
                    fontweight="bold" if value == nearest else "normal",
                )
        return to_svg(
            figure,
            name="distances",
            title=f"{comparison.task}: distance of each learner to each reference algorithm",
            description=f"{len(rows)} rows of learners, {len(columns)} columns of references.",
        )


def _tint(value: float) -> float:
    """Opacity by the logarithm of the distance, from faint at 1 to strong at a thousandth."""
    if not math.isfinite(value):
        return 0.0
    nearness = math.log(_FARTHEST / min(max(value, _NEAREST), _FARTHEST)) / math.log(_FARTHEST / _NEAREST)
    return 0.04 + 0.56 * nearness
