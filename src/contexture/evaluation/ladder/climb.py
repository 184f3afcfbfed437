"""Running the ladder: cells that are kept already are taken as they are, the others are trained and kept.

Where a user's own mixer failed, what it failed for may be gone: such a cell is trained again.

A run folder belongs to one budget; mixers, rungs and panels can be added to it. Ctrl-C loses the cells at work and
nothing else: the same command goes on.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from contexture.errors import InputError
from contexture.evaluation.ladder.budget import Budget
from contexture.evaluation.ladder.cells import Cell, Entrant, read_cell, write_cell
from contexture.evaluation.ladder.ladder import Ladder, Placing, in_order, placing_of
from contexture.evaluation.ladder.rungs import Rung
from contexture.evaluation.ladder.workers import run_cells
from contexture.store.atomic import make_folder, sweep, write_file
from contexture.store.environment import environment
from contexture.training.interrupts import Interrupted

BUDGET_FILE = "budget.json"


class ClimbProgress(Protocol):
    """Told of every cell that is done."""

    def start(self, *, total: int, kept: int, workers: int) -> None:
        """The run has `total` cells, `kept` of which are done already."""
        ...

    def done(self, placing: Placing, *, left: int) -> None:
        """One more cell is done; `left` are still to come."""
        ...

    def stop(self) -> None:
        """The run has ended, in whatever way."""
        ...


def climb(
    entrants: Sequence[Entrant],
    rungs: Sequence[Rung],
    budget: Budget,
    *,
    matches: Sequence[str],
    run_dir: Path,
    num_workers: int = 0,
    command: str = "",
    progress: ClimbProgress | None = None,
) -> Ladder:
    """Train and judge every cell that is not kept yet.

    Raises InputError if the folder belongs to another budget, Interrupted after Ctrl-C: what was done is kept.
    """
    _claim(run_dir, budget)
    order = in_order(matches)
    cells = [
        Cell(entrant=entrant, rung=rung, match=match, budget=budget)
        for match in order
        for rung in rungs
        for entrant in entrants
    ]
    placings: dict[str, Placing] = {}
    for cell in cells:
        kept = read_cell(run_dir, cell)
        if kept is not None and not (cell.entrant.source and kept["status"] == "failed"):
            placings[cell.file_name] = placing_of(cell, kept)
    missing = [cell for cell in cells if cell.file_name not in placings]
    workers = min(num_workers, len(missing))
    try:
        if progress is not None:
            progress.start(total=len(cells), kept=len(placings), workers=workers)
        for cell, result in run_cells(missing, num_workers=workers):
            write_cell(run_dir, cell, result)
            placings[cell.file_name] = placing_of(cell, result)
            if progress is not None:
                progress.done(placings[cell.file_name], left=len(cells) - len(placings))
    except KeyboardInterrupt:
        raise Interrupted(
            f"{len(placings)} of {len(cells)} cells are done and kept in {run_dir}: the same command goes on"
        ) from None
    finally:
        if progress is not None:
            progress.stop()
    return Ladder(
        budget=budget,
        entrants=tuple(entrants),
        rungs=tuple(rungs),
        matches=order,
        placings=tuple(placings[cell.file_name] for cell in cells),
        chance={rung.name: rung.build().chance for rung in rungs},
        environment=environment(),
        command=command,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _claim(run_dir: Path, budget: Budget) -> None:
    """Make the folder this budget's, or find that it is."""
    if run_dir.is_file():
        raise InputError(f"{run_dir} is a file; give a folder for the run")
    make_folder(run_dir)
    sweep(run_dir)
    path, mine = run_dir / BUDGET_FILE, {"budget": budget.name}
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held != mine:
            raise InputError(f"{run_dir} holds a ladder of the budget {held.get('budget')!r}: choose another folder")
    else:
        write_file(path, json.dumps(mine).encode() + b"\n")
