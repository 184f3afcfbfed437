"""Distances of learners to reference algorithms as a grid of numbers: the nearer, the stronger the tint."""

import math
import statistics

from contexture.evaluation.comparison import Comparison
from contexture.reports.axes import finite
from contexture.reports.figures import label
from contexture.reports.grid import GridCell, grid

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
    rows = list(comparison.distances)
    referred = {reference for row in comparison.distances.values() for reference in row}
    columns = [m.name for m in comparison.measurements if m.name in referred]
    values = [[typical(comparison, learner, reference) for reference in columns] for learner in rows]
    nearest = [min((value for value in row if math.isfinite(value)), default=math.nan) for row in values]

    def cell(row: int, column: int) -> GridCell:
        value = values[row][column]
        return GridCell(text=short(value), tint=_tint(value), bold=value == nearest[row])

    return grid(
        [label(comparison, learner) for learner in rows],
        [label(comparison, reference) for reference in columns],
        cell,
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
