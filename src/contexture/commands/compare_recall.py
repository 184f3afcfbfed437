"""`contexture compare recall --mixers A,B`: the recall ladder, as a table, a report and JSON."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from contexture.commands.console import console, say
from contexture.errors import InputError

RECALL = "recall"
ALL = "all"
RUNS = Path("contexture-runs")


def run(options: argparse.Namespace, report: Path | None) -> int:
    """Run what is missing of the ladder, print the table (or JSON) on standard output and write the report."""
    from contexture.api import recall
    from contexture.reports.ladder_progress import display

    _refuse_strays(options)
    if not options.mixers:
        raise InputError("say which mixers, as in: contexture compare recall --mixers softmax,delta-rule, or all")
    folder = Path(options.run_dir) if options.run_dir else RUNS / f"recall-{options.budget}"
    ladder = recall(
        ALL if options.mixers == (ALL,) else options.mixers,
        budget=options.budget,
        tasks=options.tasks,
        match=options.match,
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
    return 0


def num_workers(options: argparse.Namespace) -> int:
    """As many processes as asked for, or one for each processor that this one may use."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return options.workers or cores or 1


def _refuse_strays(options: argparse.Namespace) -> None:
    """The options of `compare` that say nothing about the ladder."""
    strays = {
        "--learners": options.learners,
        "--context": options.context,
        "--metric": options.metric,
        "--episodes": options.episodes,
        "--seeds": options.seeds,
        "--figure": options.figure,
        "--set": options.set,
        "--target": options.target,
    }
    given = [name for name, value in strays.items() if value]
    if given:
        raise InputError(f"{', '.join(given)} cannot be used with the recall ladder: its budgets settle that")
