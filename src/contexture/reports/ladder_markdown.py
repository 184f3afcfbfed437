"""The recall ladder as Markdown for a page, and as a grid: a row for each mixer, a column for each rung."""

import math

from contexture.evaluation.ladder.ladder import Ladder
from contexture.reports.grid import GridCell, grid
from contexture.reports.ladder_terminal import TITLES, accuracy, facts, legend, missing

_HEADINGS = ("mixer", "mean", "state", "parameters", "seconds")
_ROW = 20


def page(ladder: Ladder) -> str:
    """Every panel with what its numbers are, the machine and the command, to be included in a page."""
    machine = ladder.environment
    parts = [f"{machine['processor']}, torch {machine['torch']}; `{ladder.command}`"]
    for match in ladder.matches:
        headings = [*_HEADINGS, *(rung.name for rung in ladder.rungs)]
        rows = [
            [*facts(one), *(accuracy(one.placings[rung.name], interval=False) for rung in ladder.rungs)]
            for one in ladder.standings(match)
        ]
        lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
        parts += [f"At {TITLES[match]}:", "\n".join("| " + " | ".join(line) + " |" for line in lines)]
        if left_out := [f"- {line}" for line in missing(ladder, match)]:
            parts.append("\n".join(left_out))
    parts += (f"{line[0].upper()}{line[1:]}." for line in legend(ladder, interval=False))
    return "\n\n".join(parts) + "\n"


def accuracy_by_rung(ladder: Ladder, match: str) -> str:
    """A grid of accuracies, best mean first; the tint goes from chance to one, what reads as a rung's best is bold."""
    standings, rungs = ladder.standings(match), ladder.rungs
    reached = {rung.name: [one.placings[rung.name] for one in standings] for rung in rungs}
    best = {
        name: accuracy(max(finite, key=lambda placing: placing.accuracy), interval=False)
        for name, placings in reached.items()
        if (finite := [placing for placing in placings if math.isfinite(placing.accuracy)])
    }

    def cell(row: int, column: int) -> GridCell:
        rung = rungs[column].name
        placing = standings[row].placings[rung]
        if not math.isfinite(placing.accuracy):
            return GridCell(text="", tint=0.0)
        guess = 1 - ladder.chance[rung]
        gained = min(1.0, max(0.0, (placing.accuracy - guess) / (1 - guess)))
        text = accuracy(placing, interval=False)
        return GridCell(text=text, tint=0.04 + 0.56 * gained, bold=text == best[rung])

    return grid(
        [one.entrant.label for one in standings],
        [rung.name for rung in rungs],
        cell,
        name=f"rungs-{match}",
        title=f"recall ladder at {TITLES[match]}: accuracy of each mixer on each rung",
        description=f"{len(standings)} rows of mixers, {len(rungs)} columns of rungs.",
        cell_height=_ROW,
    )
