"""A comparison as a table for the terminal, as wide as there is room, and as plain text where there is none.

    name   kind   score after each of a few context sizes   seconds   parameters   state

* marks the best at a size, ~ those that a paired interval cannot tell from it; the oracle does not compete.
A narrow terminal gets fewer facts, then fewer sizes, then scores without their intervals.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from contexture.evaluation.comparison import Comparison
from contexture.protocols import Measurement
from contexture.reports.numbers import MISSING, column, count, number, seconds, size
from contexture.reports.summary import summary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

Fact = Literal["kind", "seconds", "parameters", "state"]

_GAP = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How many context sizes are shown, which facts, and whether scores come with half of their interval."""

    num_sizes: int
    facts: tuple[Fact, ...] = ("kind", "seconds", "parameters", "state")
    intervals: bool = True


LAYOUTS = (
    Layout(num_sizes=6),
    Layout(num_sizes=5),
    Layout(num_sizes=4),
    Layout(num_sizes=3),
    Layout(num_sizes=4, facts=("kind", "seconds")),
    Layout(num_sizes=3, facts=("kind", "seconds")),
    Layout(num_sizes=3, facts=("seconds",)),
    Layout(num_sizes=4, facts=("seconds",), intervals=False),
    Layout(num_sizes=3, facts=("seconds",), intervals=False),
    Layout(num_sizes=3, facts=(), intervals=False),
    Layout(num_sizes=2, facts=(), intervals=False),
    Layout(num_sizes=1, facts=(), intervals=False),
)
"""From the widest down; the first that fits is taken."""


def print_comparison(comparison: Comparison, console: "Console") -> None:
    """Print the table, what it shows, and what was left out."""
    from rich.text import Text

    unicode = (console.encoding or "").lower().replace("-", "").startswith("utf")
    layout = fitting(comparison, width=console.width, unicode=unicode)
    if comparison.measurements:
        console.print(table(comparison, layout, unicode=unicode))
    for line in remarks(comparison, intervals=layout.intervals):
        console.print(Text(line if unicode else line.replace("±", "+-")), soft_wrap=not console.is_terminal)


def remarks(comparison: Comparison, *, intervals: bool = True) -> list[str]:
    """What goes under the table: the legend of its marks, the result, and what is missing and why."""
    metric = comparison.scoring
    better = {"lower": "lower is better", "higher": "higher is better", "level": f"should be {metric.level}"}
    lines = []
    if comparison.measurements:
        half = f", ± half of the {100 * comparison.level:g} % interval ({comparison.method})" if intervals else ""
        lines.append(f"{metric.label}, {better[metric.direction]}{half}; * best, ~ not told apart from it")
    lines.append(summary(comparison))
    lines += [f"left out: {n} {comparison.counted} ({reason})" for n, reason in comparison.left_out.items()]
    lines += [f"skipped: {reason}" for reason in comparison.skipped.values()]
    lines += [f"{name}: {said}" for name, notes in comparison.notes.items() for said in notes]
    if not comparison.complete:
        lines.append(f"interrupted: the {comparison.entrants} above are those that were done")
    return lines


def fitting(comparison: Comparison, *, width: int, unicode: bool = True) -> Layout:
    """The widest layout that fits into `width` characters, or the narrowest there is."""
    fit = (one for one in LAYOUTS if _width(*_grid(comparison, one, unicode=unicode)) <= width)
    return next(fit, LAYOUTS[-1])


def table(comparison: Comparison, layout: Layout, *, unicode: bool = True) -> "Table":
    """The table, with no more columns than the layout says."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headings, rows = _grid(comparison, layout, unicode=unicode)
    found = Table(
        box=box.SIMPLE_HEAD if unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        title=comparison.task,
        title_justify="left",
    )
    for heading in headings:
        words = heading in ("learner", "agent", "kind")
        found.add_column(heading, justify="left" if words else "right", no_wrap=True, overflow="ellipsis")
    for measurement, row in zip(comparison.measurements, rows, strict=True):
        name = Text(row[0], style=_style(comparison, measurement))
        found.add_row(name, *(_cell(text) for text in row[1:]))
    return found


def _grid(comparison: Comparison, layout: Layout, *, unicode: bool) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of texts for each learner."""
    sizes = chosen(len(comparison.context), layout.num_sizes)
    scores = [_scores(comparison, i, intervals=layout.intervals, unicode=unicode) for i in sizes]
    facts: tuple[Fact, ...] = layout.facts
    first: list[Fact] = [fact for fact in facts if fact == "kind"]
    rest: list[Fact] = [fact for fact in facts if fact != "kind"]
    headings = [comparison.entrants.removesuffix("s"), *first, *(f"n={comparison.context[i]} " for i in sizes), *rest]
    rows = [
        [
            comparison.shown(m.name),
            *(_fact(m, fact, unicode=unicode) for fact in first),
            *(column[k] for column in scores),
            *(_fact(m, fact, unicode=unicode) for fact in rest),
        ]
        for k, m in enumerate(comparison.measurements)
    ]
    return headings, rows


def _width(headings: list[str], rows: list[list[str]]) -> int:
    columns = zip(headings, *rows, strict=True)
    return sum(max(map(len, column)) for column in columns) + _GAP * (len(headings) - 1)


def _style(comparison: Comparison, measurement: Measurement) -> str:
    if measurement.name == comparison.oracle:
        return "italic"
    return "bold" if measurement.kind != "classical" else ""


def _cell(text: str) -> "Text":
    from rich.text import Text

    return Text(text, style={"*": "bold green", "~": "green"}.get(text[-1:], ""))


def _fact(measurement: Measurement, fact: Fact, *, unicode: bool) -> str:
    match fact:
        case "kind":
            return measurement.kind
        case "seconds":
            return seconds(measurement.seconds, micro="µs" if unicode else "us")
        case "parameters":
            return count(measurement.parameters)
        case "state":
            return size(measurement.state_bytes)


def _scores(comparison: Comparison, i: int, *, intervals: bool, unicode: bool) -> list[str]:
    """Each learner's score at one size, half of its interval, and its mark."""
    everyone = comparison.measurements
    texts = []
    for m, value in zip(everyone, column([m.value[i] for m in everyone]), strict=True):
        half, text = (m.high[i] - m.low[i]) / 2, value
        if intervals and value != MISSING and math.isfinite(half):
            decimals = len(value.partition(".")[2])
            spread = number(half) if "e" in value else f"{half:,.{decimals}f}"
            text += f" {'±' if unicode else '+-'}{spread}"
        texts.append(text + (mark(comparison, m.name, i) or " "))
    return texts


def mark(comparison: Comparison, name: str, i: int) -> str:
    """ "*" for the best at the i-th size, "~" for a learner not told apart from it; "" for the rest and if all tie."""
    tied = comparison.tied[i] if i < len(comparison.tied) else ()
    competing = [m for m in comparison.contestants if math.isfinite(m.value[i])]
    if name not in tied or (len(tied) == len(competing) > 1):
        return ""
    return "*" if tied[0] == name else "~"


def chosen(available: int, most: int) -> list[int]:
    """Indices spread evenly from the first to the last.

    >>> chosen(9, 3), chosen(2, 5), chosen(4, 1)
    ([0, 4, 8], [0, 1], [3])
    """
    if most >= available:
        return list(range(available))
    if most == 1:
        return [available - 1]
    return [round(k * (available - 1) / (most - 1)) for k in range(most)]
