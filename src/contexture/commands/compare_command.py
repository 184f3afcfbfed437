"""`contexture compare TASK`: learning curves of learners on one task, as a table, a report and JSON."""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contexture.commands import compare_agents, compare_mixers, compare_recall, compare_stream
from contexture.commands.console import console, say, share_bar
from contexture.commands.reading import reading
from contexture.commands.settings import parse
from contexture.errors import InputError
from contexture.store.atomic import write_file

if TYPE_CHECKING:
    from contexture.evaluation.compare import Progress
    from contexture.evaluation.comparison import Comparison
    from contexture.evaluation.per_seed import PerSeed
    from contexture.selection import AnyLearner

REPORTS = Path("contexture-reports")


def run(options: argparse.Namespace) -> int:
    """Compare, print the table (or JSON) on standard output and write the report."""
    if options.stream:
        _check_figure(options.figure)
        return compare_stream.run(options)
    report = _report_path(options)
    _check_figure(options.figure)
    if options.task == compare_recall.RECALL:
        return compare_recall.run(options, report)
    if options.markdown:
        raise InputError("--markdown writes the tables of the recall ladder alone: contexture compare recall")
    if compare_agents.names_an_environment(options.task):
        with _display() as progress:
            comparison = compare_agents.compare(options, progress)
    else:
        compare_agents.refuse_strays(options)
        comparison = _compare_learners(options)
    if options.json:
        print(comparison.to_json())
    else:
        from contexture.reports.terminal import print_comparison

        print_comparison(comparison, console(stderr=False))
    if report is not None:
        from contexture.reports.html import write_report

        write_report(comparison, report)
        say(f"report: {report}")
    if options.figure:
        from contexture.reports.figures import learning_curve
        from contexture.reports.svg import standalone

        write_file(Path(options.figure).resolve(), standalone(learning_curve(comparison)).encode())
        say(f"figure: {options.figure}")
    if not comparison.complete:
        raise KeyboardInterrupt(f"the {comparison.entrants} that were done are above")
    return 0


def _compare_learners(options: argparse.Namespace) -> "Comparison":
    from contexture.api import compare
    from contexture.selection import choose_learners, choose_task
    from contexture.tasks.tables import TableTask

    task = choose_task(options.task, reading(options), parse(options.set))
    learners: dict[str, AnyLearner | PerSeed] = {**choose_learners(task, options.learners)}
    seeds, failed = options.seeds or 3, dict[str, str]()
    given = {"--tasks": options.tasks, "--match": options.match, "--run-dir": options.run_dir}
    strays = [name for name, value in given.items() if value]
    if strays and not options.mixers:
        raise InputError(f"{', '.join(strays)} cannot be used without mixers to train: see --mixers")
    if options.mixers:
        trained, failed = compare_mixers.train(options, num_seeds=seeds)
        learners |= trained
    if isinstance(task, TableTask):
        say(*task.describe())
    with _display() as progress:
        return compare(
            task,
            learners,
            name=options.task,
            context=options.context,
            metric=options.metric,
            episodes=options.episodes,
            seeds=seeds,
            skipped=failed,
            command=shlex.join(["contexture", *sys.argv[1:]]),
            progress=progress,
        )


def _check_figure(path: str | None) -> None:
    from contexture.tables.write import check_output

    if path is None:
        return
    if not path.endswith(".svg"):
        raise InputError(f"figures are written as SVG: give a name that ends in .svg rather than {path!r}")
    check_output(path)


def _report_path(options: argparse.Namespace) -> Path | None:
    """Where the report goes, checked before any work; None for no report."""
    from contexture.tables.write import check_output

    if options.no_report:
        return None
    if options.report:
        check_output(options.report, inputs=[options.task] if Path(options.task).is_file() else [])
        return Path(options.report)
    REPORTS.mkdir(exist_ok=True)
    stem = Path(options.task.split(":")[-1]).stem
    return REPORTS / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}.html"


@contextmanager
def _display() -> "Iterator[Progress | None]":
    """A live bar with the time left on a terminal; nothing elsewhere."""
    with share_bar("comparing") as advance:
        if advance is None:
            yield None
            return

        def progress(index: int, total: int, fraction: float, note: str) -> None:
            advance((index + fraction) / total, note)

        yield progress
