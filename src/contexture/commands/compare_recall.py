"""`contexture compare recall --mixers A,B`: the recall ladder, as a table, a report and JSON."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contexture.commands.console import console, say
from contexture.commands.own_mixers import refuse_the_future
from contexture.errors import InputError
from contexture.store.atomic import write_file

if TYPE_CHECKING:
    from contexture.evaluation.ladder.ladder import Ladder

RECALL = "recall"
ALL = "all"
RUNS = Path("contexture-runs")
FOREIGN = (
    "learners", "context", "metric", "episodes", "seeds", "set", "agents", "steps", "worlds", "target", "type",
    "categorical", "numeric", "delimiter", "encoding",
)  # fmt: skip
"""Options of `compare` that say nothing about the ladder."""


def run(options: argparse.Namespace, report: Path | None) -> int:
    """Run what is missing of the ladder, print the table (or JSON) on standard output and write the report."""
    from contexture.api import recall
    from contexture.reports.ladder_progress import display
    from contexture.tables.write import check_output

    _refuse_strays(options)
    if not options.mixers:
        raise InputError("say which mixers, as in: contexture compare recall --mixers softmax,delta-rule, or all")
    if options.markdown:
        check_output(options.markdown)
    refuse_the_future(options.mixers)
    folder = Path(options.run_dir) if options.run_dir else RUNS / f"recall-{options.budget}"
    ladder = recall(
        ALL if options.mixers == (ALL,) else options.mixers,
        budget=options.budget,
        tasks=options.tasks,
        match=options.match or ("parameters",),
        run_dir=folder,
        workers=num_workers(options),
        command=shlex.join(["contexture", *sys.argv[1:]]),
        progress=display(),
    )
    if options.json:
        print(ladder.to_json())
    else:
        from contexture.reports.ladder_terminal import print_ladder

        print_ladder(ladder, console(stderr=False))
    if report is not None:
        from contexture.reports.ladder_html import write_ladder

        write_ladder(ladder, report)
        say(f"report: {report}")
    _write_pictures(ladder, options.figure)
    if options.markdown:
        from contexture.reports.ladder_markdown import page

        write_file(Path(options.markdown).resolve(), page(ladder).encode())
        say(f"tables: {options.markdown}")
    return 0


def _write_pictures(ladder: "Ladder", path: str | None) -> None:
    """Accuracies on each rung under the given name; beside it, mean accuracy against state and against seconds."""
    if path is None:
        return
    from contexture.reports.ladder_figures import accuracy_by_seconds, accuracy_by_state
    from contexture.reports.ladder_markdown import accuracy_by_rung
    from contexture.reports.svg import standalone

    target, match = Path(path).resolve(), ladder.matches[0]
    drawn = {
        target: accuracy_by_rung(ladder, match),
        target.with_stem(f"{target.stem}-state"): accuracy_by_state(ladder, match),
        target.with_stem(f"{target.stem}-seconds"): accuracy_by_seconds(ladder, match),
    }
    for file, svg in drawn.items():
        write_file(file, standalone(svg).encode())
    say(f"figures: {', '.join(file.name for file in drawn)} in {target.parent}")


def num_workers(options: argparse.Namespace) -> int:
    """As many processes as asked for, or one for each processor that this one may use."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return options.workers or cores or 1


def _refuse_strays(options: argparse.Namespace) -> None:
    """The options of `compare` that say nothing about the ladder."""
    given = [f"--{name}" for name in FOREIGN if getattr(options, name)]
    if given:
        raise InputError(
            f"{', '.join(given)} cannot be used with the recall ladder: its rungs and budgets settle the rest"
        )
