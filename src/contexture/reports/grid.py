"""A grid of numbers as a picture: rows and columns with names, and in each cell a text on a tint of one hue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contexture.reports.figures import text_width
from contexture.reports.palette import LIGHT
from contexture.reports.svg import DPI, SETTINGS, to_svg

_CELL_WIDTH, _CELL_HEIGHT = 54, 26


@dataclass(frozen=True, kw_only=True, slots=True)
class GridCell:
    """What stands in a cell. tint: opacity of its ground, 0 to 1."""

    text: str
    tint: float
    bold: bool = False


def grid(
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[int, int], GridCell],
    *,
    name: str,
    title: str,
    description: str,
    cell_height: int = _CELL_HEIGHT,
) -> str:
    """The grid as an <svg> element; `cell` is asked for every row and column by their indices."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    with mpl.rc_context(SETTINGS):
        left = 16 + max(map(text_width, rows), default=0)
        widths = [text_width(column) for column in columns]
        top = 16 + 0.75 * max(widths, default=0)
        right = max((0.8 * w - _CELL_WIDTH * (len(columns) - i - 0.5) for i, w in enumerate(widths)), default=0) + 4
        width = left + _CELL_WIDTH * len(columns) + right
        height = top + cell_height * len(rows) + 4
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for i, column in enumerate(columns):
            x = left + _CELL_WIDTH * (i + 0.45)
            axes.text(x, top - 6, column, rotation=40, rotation_mode="anchor", color=LIGHT["ink"])
        for j, row in enumerate(rows):
            y = top + cell_height * (j + 0.5)
            axes.text(left - 8, y, row, ha="right", va="center_baseline", color=LIGHT["ink"])
            for i in range(len(columns)):
                shown, x = cell(j, i), left + _CELL_WIDTH * i
                ground = Rectangle(
                    (x + 1, y - cell_height / 2 + 1),
                    _CELL_WIDTH - 2,
                    cell_height - 2,
                    facecolor=LIGHT["heat"],
                    alpha=shown.tint,
                    linewidth=0,
                )
                axes.add_patch(ground)
                axes.text(
                    x + _CELL_WIDTH / 2,
                    y,
                    shown.text,
                    ha="center",
                    va="center_baseline",
                    color=LIGHT["ink"],
                    fontweight="bold" if shown.bold else "normal",
                )
        return to_svg(figure, name=name, title=title, description=description)
