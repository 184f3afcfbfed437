"""The published recall ladder: every causal mixer on every rung at equal parameters, continued from what is published.

    python benchmarks/recall_ladder.py                        # trains what is missing, then publishes
    python benchmarks/recall_ladder.py --rungs mqar-8 copying # these rungs alone are added
    python benchmarks/recall_ladder.py --rungs                # publishes what stands in the run folder, trains nothing

It takes some six hours on one core, and may be stopped with Ctrl-C at any time: every cell is kept in the run folder,
and cells of results/recall_ladder.json count as done. A rung is published when every mixer has its cell. Written are

    results/recall_ladder.json         what `contexture compare recall --json` prints
    docs/measured/recall_ladder.md     the table of docs/recall.md
    docs/images/recall*.svg            accuracies by rung; mean accuracy against state and against seconds
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from contexture.api import recall
from contexture.evaluation.ladder.budget import choose_budget
from contexture.evaluation.ladder.cells import Cell, causal_mixers, entrant, read_cell, write_cell
from contexture.evaluation.ladder.ladder import Ladder, Placing, placing_of
from contexture.evaluation.ladder.rungs import RUNGS
from contexture.reports.ladder_figures import accuracy_by_seconds, accuracy_by_state
from contexture.reports.ladder_markdown import accuracy_by_rung, page
from contexture.reports.ladder_progress import display
from contexture.reports.svg import standalone
from contexture.store.atomic import write_file
from contexture.store.environment import environment
from contexture.training.interrupts import Interrupted

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "results" / "recall_ladder.json"
TABLE = ROOT / "docs" / "measured" / "recall_ladder.md"
IMAGES = ROOT / "docs" / "images"
BUDGET, MATCH = choose_budget("standard"), "parameters"


def cell_of(mixer: str, rung: str) -> Cell:
    """The cell of a mixer on a rung."""
    return Cell(entrant=entrant(mixer), rung=RUNGS[rung], match=MATCH, budget=BUDGET)


def restore(run_dir: Path) -> None:
    """Put published cells whose rung is still the same, and which the run folder lacks, into the run folder."""
    if not RESULT.exists():
        return
    published = json.loads(RESULT.read_text(encoding="utf-8"))
    run_dir.mkdir(parents=True, exist_ok=True)
    budget = {name: value for name, value in published["budget"].items() if name != "rungs"}
    rungs = {rung["name"]: rung["settings"] for rung in published["rungs"]}
    known = set(causal_mixers())
    for placing in published["placings"]:
        mixer, rung = placing["mixer"], placing["rung"]
        if mixer not in known or rung not in RUNGS:
            continue
        cell = cell_of(mixer, rung)
        same = cell.recipe()["budget"] == budget and dict(RUNGS[rung].settings) == rungs[rung]
        if same and read_cell(run_dir, cell) is None:
            held = {name: value for name, value in placing.items() if name not in ("mixer", "rung", "match")}
            write_cell(run_dir, cell, {name: value for name, value in held.items() if value is not None})


def whole_rungs(run_dir: Path) -> list[str]:
    """The rungs of which every causal mixer has its cell."""
    mixers = causal_mixers()
    return [rung for rung in RUNGS if all(read_cell(run_dir, cell_of(mixer, rung)) is not None for mixer in mixers)]


def gathered(run_dir: Path, rungs: Sequence[str], command: str) -> Ladder:
    """The ladder of these rungs from what is kept."""
    placings = list[Placing]()
    for rung in rungs:
        for mixer in causal_mixers():
            kept = read_cell(run_dir, cell_of(mixer, rung))
            assert kept is not None
            placings.append(placing_of(cell_of(mixer, rung), kept))
    return Ladder(
        budget=replace(BUDGET, rungs=tuple(rungs)),
        entrants=tuple(entrant(mixer) for mixer in causal_mixers()),
        rungs=tuple(RUNGS[rung] for rung in rungs),
        matches=(MATCH,),
        placings=tuple(placings),
        chance={rung: RUNGS[rung].build().chance for rung in rungs},
        environment=environment(),
        command=command,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        complete=len(rungs) == len(RUNGS),
    )


def publish(ladder: Ladder) -> None:
    """Write the document, the table and the pictures."""
    write_file(RESULT, ladder.to_json().encode() + b"\n")
    write_file(TABLE, page(ladder).encode())
    pictures = {
        "recall": accuracy_by_rung(ladder, MATCH),
        "recall-state": accuracy_by_state(ladder, MATCH),
        "recall-seconds": accuracy_by_seconds(ladder, MATCH),
    }
    for name, svg in pictures.items():
        write_file(IMAGES / f"{name}.svg", standalone(svg).encode())


def main() -> int:
    """Restore, train what is asked for, publish what is whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rungs", nargs="*", choices=list(RUNGS), default=list(RUNGS), help="rungs to train")
    parser.add_argument("--run-dir", type=Path, default=Path("contexture-runs") / "recall-standard")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    options = parser.parse_args()
    restore(options.run_dir)
    stopped = ""
    try:
        for rung in options.rungs:
            print(rung, file=sys.stderr)
            recall(
                budget=BUDGET.name,
                tasks=[rung],
                match=[MATCH],
                run_dir=options.run_dir,
                workers=options.workers,
                progress=display(),
            )
    except Interrupted as interrupted:
        stopped = str(interrupted)
    rungs = whole_rungs(options.run_dir)
    if rungs:
        publish(gathered(options.run_dir, rungs, shlex.join(["python", "benchmarks/recall_ladder.py"])))
        print(f"published: {', '.join(rungs)}", file=sys.stderr)
    if stopped:
        print(f"interrupted; {stopped}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
