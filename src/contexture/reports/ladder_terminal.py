"""The recall ladder as tables for the terminal: one for each thing that was made equal.

    mixer   state   parameters   seconds   accuracy on each rung   mean

A narrow terminal gets accuracies without their intervals, then the mean alone.
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
            console.print(_fitting(ladder, match, width=console.width, unicode=unicode))
        for line in missing(ladder, match):
            console.print(line, markup=False, highlight=False, soft_wrap=plain)
    for line in legend(ladder):
        console.print(line if unicode else line.replace("±", "+-"), markup=False, highlight=False, soft_wrap=plain)


def legend(ladder: Ladder) -> list[str]:
    """What goes under the tables."""
    budget = ladder.budget
    chance = ", ".join(f"{name} {1 - value:.2f}" for name, value in ladder.chance.items())
    seeds = f"{budget.num_seeds} seeds" if budget.num_seeds > 1 else "one seed"
    half = ", ± half of the 95 % interval (Student's t over seeds)" if budget.num_seeds > 1 else ""
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
        f"{words.get(status, status)}: {mixer} on {', '.join(rungs)} ({match}): {reason}"
        for (mixer, status, reason), rungs in lines.items()
    ]


def accuracy(placing: Placing | None, *, interval: bool, unicode: bool = True) -> str:
    """An accuracy, with half of its interval where asked; a dash where there is none."""
    if placing is None or placing.status != "done":
        return MISSING
    half = (placing.high - placing.low) / 2
    if not interval or not math.isfinite(half):
        return f"{placing.accuracy:.2f}"
    return f"{placing.accuracy:.2f} {'±' if unicode else '+-'}{half:.2f}"


def _fitting(ladder: Ladder, match: str, *, width: int, unicode: bool) -> "Table":
    """The widest table that fits."""
    rungs = [rung.name for rung in ladder.rungs]
    for names, interval in ((rungs, True), (rungs, False)):
        headings, rows = _grid(ladder, match, names, interval=interval, unicode=unicode)
        columns = zip(headings, *rows, strict=True)
        if sum(max(map(len, column)) for column in columns) + _GAP * (len(headings) - 1) <= width:
            break
    else:
        headings, rows = _grid(ladder, match, [], interval=False, unicode=unicode)
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD if unicode else box.ASCII2,
        pad_edge=False,
        show_edge=False,
        title=f"recall, {TITLES[match]}",
        title_justify="left",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "mixer" else "right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _grid(
    ladder: Ladder, match: str, rungs: list[str], *, interval: bool, unicode: bool
) -> tuple[list[str], list[list[str]]]:
    headings = ["mixer", "state", "parameters", "seconds", *rungs, "mean"]
    rows = []
    for one in ladder.standings(match):
        scores = [accuracy(one.placings.get(name), interval=interval, unicode=unicode) for name in rungs]
        rows.append([*_facts(one), *scores, MISSING if math.isnan(one.mean) else f"{one.mean:.3f}"])
    return headings, rows


def _facts(standing: Standing) -> list[str]:
    parts = (size(standing.state_bytes), count(standing.parameters), seconds(standing.seconds))
    return [standing.entrant.label, *parts]
