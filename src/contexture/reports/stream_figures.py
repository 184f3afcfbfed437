"""Losses along a stream: a table for the terminal, and a picture with one line for each learner.

A point of a line is the mean loss of one window of pairs; where the law is known to change there is a dotted rule.
"""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from contexture.evaluation.streams import FLOOR, StreamComparison
from contexture.reports import axes as shared
from contexture.reports.numbers import column, count, seconds
from contexture.reports.palette import LIGHT, NUM_HUES
from contexture.reports.placement import spread
from contexture.reports.svg import DPI, SETTINGS, to_svg

if TYPE_CHECKING:
    from rich.console import Console

MOST = 5
"""Times the median of all windows that the picture reaches to."""
_WIDTH, _HEIGHT, _LINE = 860, 420, 17
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5))


def ranked(comparison: StreamComparison) -> list[int]:
    """Places of the learners, the lowest loss first."""
    return sorted(range(len(comparison.scores)), key=lambda place: comparison.scores[place].loss)


def loss_words(comparison: StreamComparison) -> str:
    """What the loss is."""
    if any(score.accuracy is not None for score in comparison.scores):
        return f"mean log loss of each pair before it is learned from (probabilities count as {FLOOR:g} at least)"
    return "mean squared error of each pair before it is learned from, over the variance of all targets"


def grid(comparison: StreamComparison) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of texts for each learner."""
    order = [comparison.scores[place] for place in ranked(comparison)]
    losses = column([score.loss for score in order])
    rows = []
    for score, loss in zip(order, losses, strict=True):
        hits = [] if score.accuracy is None else [f"{score.accuracy:.4f}"]
        rows.append([score.name, loss, *hits, seconds(score.seconds), f"{score.pairs_per_second:,.0f}"])
    hits = ["accuracy"] if order and order[0].accuracy is not None else []
    return ["learner", "loss", *hits, "time", "pairs a second"], rows


def print_streams(comparison: StreamComparison, console: "Console") -> None:
    """Print the table, the lowest loss first."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headings, rows = grid(comparison)
    title = f"{comparison.source}: {comparison.target} of {count(comparison.num_pairs)} pairs in their order"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "learner" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    said = [loss_words(comparison), *(f"left out: {name} ({why})" for name, why in comparison.skipped.items())]
    for line in said:
        console.print(Text(line), soft_wrap=not console.is_terminal)


def markdown(comparisons: Sequence[StreamComparison], *, command: str) -> str:
    """A table for the documentation: a column for each learner, its loss, accuracy and pairs a second."""
    names = list(dict.fromkeys(score.name for comparison in comparisons for score in comparison.scores))
    lines = [f"`{command}`", ""]
    for kind in ("classification", "regression"):
        chosen = [c for c in comparisons if (c.scores[0].accuracy is not None) == (kind == "classification")]
        if not chosen:
            continue
        lines += [f"{loss_words(chosen[0]).capitalize()}:", ""]
        lines += ["| learner | " + " | ".join(c.source for c in chosen) + " |", "|---" * (len(chosen) + 1) + "|"]
        for name in names:
            cells = [_cell(c, name) for c in chosen]
            if any(cells):
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(comparison: StreamComparison, name: str) -> str:
    """Loss, accuracy if there is one, and speed; the lowest loss in bold."""
    held = {score.name: score for score in comparison.scores}
    if name not in held:
        return ""
    score, least = held[name], min(score.loss for score in comparison.scores)
    loss = f"{score.loss:.3f}" if score.loss < 100 else f"{score.loss:.1e}"
    loss = f"**{loss}**" if score.loss == least else loss
    hits = "" if score.accuracy is None else f", {score.accuracy:.3f}"
    return f"{loss}{hits}, {score.pairs_per_second:,.0f}/s"


def figure(comparison: StreamComparison) -> str:
    """The windows' mean losses against the pairs seen, each line named where it ends."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        drawn = Figure(figsize=(_WIDTH / DPI, _HEIGHT / DPI), dpi=DPI)
        left, bottom, top, right = 56, 48, 34, 190
        area = (left / _WIDTH, bottom / _HEIGHT, (_WIDTH - left - right) / _WIDTH, (_HEIGHT - bottom - top) / _HEIGHT)
        axes = drawn.add_axes(area)
        shared.quiet(axes)
        values = [value for score in comparison.scores for value in score.windows]
        most = MOST * statistics.median(values)  # a learner that diverges leaves the picture, and the others stay
        low, high = shared.padded([min(value, most) for value in values], log=False)
        shared.number_y(axes, low, high, log=False)
        for place, drift in enumerate(comparison.drifts):
            axes.axvline(drift, color=LIGHT["muted"], linewidth=0.7, dashes=(2, 3), zorder=1, gid=f"drift-{place}")
        ends = []
        for index, score in enumerate(comparison.scores):
            at = [
                min((n + 1) * comparison.window, comparison.num_pairs) - comparison.window / 2
                for n in range(len(score.windows))
            ]
            axes.plot(
                at,
                score.windows,
                color=LIGHT[_hue(index)],
                linewidth=2.4 if index == 0 else 1.4,
                dashes=_DASHES[index // NUM_HUES % len(_DASHES)] or (None, None),
                zorder=3 if index == 0 else 2,
                gid=f"learner-{index}.line",
            )
            ends.append(score.windows[-1])
        axes.set_xlim(0, comparison.num_pairs)
        axes.set_xlabel("pairs seen", color=LIGHT["muted"], labelpad=6)
        axes.text(
            -44 / axes.bbox.width,
            1 + 14 / axes.bbox.height,
            f"mean loss in windows of {comparison.window:,} pairs (lower is better)"
            + ("; dotted: the law changes" if comparison.drifts else ""),
            transform=axes.transAxes,
            color=LIGHT["ink"],
        )
        height = axes.bbox.height
        wanted = [min(max((end - low) / (high - low), 0.0), 1.0) * height for end in ends]
        spaced = spread(wanted, gap=_LINE, low=0, high=height)
        for index, score in enumerate(comparison.scores):
            axes.annotate(
                score.name,
                xy=(1, wanted[index] / height),
                xytext=(1 + 18 / axes.bbox.width, spaced[index] / height),
                xycoords="axes fraction",
                textcoords="axes fraction",
                va="center",
                color=LIGHT[_hue(index)],
                fontweight="bold" if index == 0 else "normal",
                arrowprops={"arrowstyle": "-", "color": LIGHT[_hue(index)], "linewidth": 0.8, "shrinkB": 0},
                annotation_clip=False,
            )
        best = comparison.scores[ranked(comparison)[0]]
        return to_svg(
            drawn,
            name="stream",
            title=f"{comparison.source}: loss along the stream",
            description=f"A line for each of {len(comparison.scores)} learners; the lowest overall is {best.name}.",
        )


def _hue(index: int) -> str:
    return f"hue-{index % NUM_HUES + 1}"
