"""The recall ladder as tables for the terminal: one for each thing that was made equal.

    mixer   mean   state   parameters   seconds   accuracy on each rung

A narrow terminal gets accuracies without their intervals, then the rungs over several tables.
"""

import math
from typing import TYPE_CHECKING

from contexture.evaluation.ladder.ladder import Ladder, Placing, Standing
from contexture.reports.numbers import MISSING, count, seconds, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TITLES = {
    "parameters": "equal parameters",
    "state": "equal state",
    "seconds": "equal training time",
}
_GAP = 3


def print_ladder(ladder: Ladder, console: "Console") -> None:
    """Print every panel, what it shows, and which mixers are missing from it and why."""
    unicode = (console.encoding or "").lower().replace("-", "").startswith("utf")
    plain = not console.is_terminal
    for match in ladder.matches:
        if ladder.standings(match):
            for table in _tables(ladder, match, width=console.width, unicode=unicode):
                console.print(table)
        for line in missing(ladder, match):
            console.print(line, markup=False, highlight=False, soft_wrap=plain)
    for line in legend(ladder):
        console.print(line if unicode else line.replace("±", "+-"), markup=False, highlight=False, soft_wrap=plain)


def legend(ladder: Ladder, *, interval: bool = True) -> list[str]:
    """What goes under the tables; `interval` says whether they show intervals."""
    budget = ladder.budget
    chance = ", ".join(f"{name} {1 - value:.2f}" for name, value in ladder.chance.items())
    seeds = f"{budget.num_seeds} seeds" if budget.num_seeds > 1 else "one seed"
    half = ", ± half of the 95 % interval (Student's t over seeds)" if budget.num_seeds > 1 and interval else ""
    return [
        f"accuracy, mean over {seeds}{half}; state and parameters at the largest rung, seconds of one training",
        f"chance: {chance}",
    ]


def missing(ladder: Ladder, match: str) -> list[str]:
    """One line for each mixer and reason: those that failed, and those that no width matches.

    Rungs with one reason share a line.
    """
    lines: dict[tuple[str, str, str], list[str]] = {}
    for placing in ladder.absent(match):
        lines.setdefault((placing.mixer, placing.status, placing.reason), []).append(placing.rung)
    words = {"failed": "failed", "unmatched": "left out"}
    return [
        f"{words.get(status, status)}: {mixer} on {_listed(ladder, rungs)} ({match}): {reason}"
        for (mixer, status, reason), rungs in lines.items()
    ]


def _listed(ladder: Ladder, rungs: list[str]) -> str:
    return "every rung" if len(rungs) == len(ladder.rungs) > 1 else ", ".join(rungs)


def accuracy(placing: Placing | None, *, interval: bool, unicode: bool = True) -> str:
    """An accuracy, with half of its interval where asked; a dash where there is none."""
    if placing is None or placing.status != "done":
        return MISSING
    half = (placing.high - placing.low) / 2
    if not interval or not math.isfinite(half):
        return f"{placing.accuracy:.2f}"
    return f"{placing.accuracy:.2f} {'±' if unicode else '+-'}{half:.2f}"


def _tables(ladder: Ladder, match: str, *, width: int, unicode: bool) -> "list[Table]":
    """One table with intervals if that fits, else one without, else the rungs over as many tables as they need."""
    rungs = [rung.name for rung in ladder.rungs]
    facts = _fact_columns(ladder, match)
    for interval in (True, False):
        columns = [_rung_column(ladder, match, name, interval=interval, unicode=unicode) for name in rungs]
        if _width([*facts, *columns]) <= width:
            return [_table([*facts, *columns], TITLES[match], unicode=unicode)]
    parts, part = [], facts
    for column in columns:
        if len(part) > 1 and _width([*part, column]) > width:
            parts.append(part)
            part = facts[:1]
        part = [*part, column]
    return [
        _table(columns, TITLES[match] + (", continued" if number else ""), unicode=unicode)
        for number, columns in enumerate([*parts, part])
    ]


def _width(columns: list[list[str]]) -> int:
    return sum(max(map(len, column)) for column in columns) + _GAP * (len(columns) - 1)


def _table(columns: list[list[str]], title: str, *, unicode: bool) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD if unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        title=f"recall, {title}",
        title_justify="left",
    )
    for heading, *_ in columns:
        table.add_column(heading, justify="left" if heading == "mixer" else "right", no_wrap=True, overflow="ellipsis")
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    return table


def _fact_columns(ladder: Ladder, match: str) -> list[list[str]]:
    """Columns that begin with their heading: what there is to say of a mixer besides its rungs."""
    headings = ["mixer", "mean", "state", "parameters", "seconds"]
    return [list(column) for column in zip(headings, *map(facts, ladder.standings(match)), strict=True)]


def _rung_column(ladder: Ladder, match: str, rung: str, *, interval: bool, unicode: bool) -> list[str]:
    standings = ladder.standings(match)
    return [rung, *(accuracy(one.placings.get(rung), interval=interval, unicode=unicode) for one in standings)]


def facts(standing: Standing) -> list[str]:
    """What there is to say of a mixer besides its rungs: name, mean, state, parameters, seconds."""
    mean = MISSING if math.isnan(standing.mean) else f"{standing.mean:.3f}"
    parts = (size(standing.state_bytes), count(standing.parameters), seconds(standing.seconds))
    return [standing.entrant.label, mean, *parts]
