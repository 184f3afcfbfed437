"""`contexture compare SOURCE --stream`: learners on pairs in their order, asked, then told.

SOURCE is a table's file (with --target), a bundled table, or a stream that has a name.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from contexture.commands.console import console, say, share_bar
from contexture.commands.reading import reading
from contexture.errors import InputError
from contexture.store.atomic import write_file

if TYPE_CHECKING:
    from contexture.evaluation.streams import StreamScore
    from contexture.tasks.streams import Stream

RUNS = Path("contexture-runs")


def run(options: argparse.Namespace) -> int:
    """Score every learner that is not kept yet, print the table (or JSON), and draw the figure if one is asked for."""
    from contexture.evaluation.stream_runs import compare_on_stream

    _refuse_strays(options)
    stream = _stream(options)
    folder = Path(options.run_dir) if options.run_dir else RUNS / f"stream-{Path(stream.source).stem}"
    with share_bar("reading the stream") as advance:

        def done(score: "StreamScore") -> None:
            if advance is None:
                say(f"{score.name}: loss {score.loss:.4f} in {score.seconds:.0f} s")

        comparison = compare_on_stream(
            stream,
            folder,
            learners=options.learners,
            command=shlex.join(["contexture", *sys.argv[1:]]),
            advance=advance,
            done=done,
        )
    from contexture.reports.stream_figures import figure, print_streams

    if options.json:
        print(json.dumps(comparison.to_document(), indent=1))
    else:
        print_streams(comparison, console(stderr=False))
    if options.figure:
        from contexture.reports.svg import standalone

        write_file(Path(options.figure).resolve(), standalone(figure(comparison)).encode())
        say(f"figure: {options.figure}")
    return 0


def _stream(options: argparse.Namespace) -> "Stream":
    """The pairs that the user means; InputError with what there is for anything else."""
    from contexture.selection import Reading, choose_task, names_a_file
    from contexture.tasks.streams import known_streams, named_stream, table_stream
    from contexture.tasks.tables import BUNDLED, TableTask

    if options.task in known_streams() and not names_a_file(options.task):
        if reading(options) != Reading():
            raise InputError(f"{options.task!r} is no file, so the options for reading a table do not apply")
        stream = named_stream(options.task)
        say(stream.describe())
        return stream
    if not names_a_file(options.task) and options.task not in BUNDLED:
        raise InputError(
            f"--stream reads a table's rows in their order, or one of {', '.join(known_streams())}, "
            f"and {options.task!r} is neither"
        )
    task = choose_task(options.task, reading(options), {})
    assert isinstance(task, TableTask)
    say(*task.dataset.describe())
    return table_stream(task.dataset)


def _refuse_strays(options: argparse.Namespace) -> None:
    """The options of `compare` that say nothing about a stream."""
    strays = {
        "--context": options.context,
        "--metric": options.metric,
        "--episodes": options.episodes,
        "--seeds": options.seeds,
        "--mixers": options.mixers,
        "--tasks": options.tasks,
        "--report": options.report,
        "--set": options.set,
    }
    for name, value in strays.items():
        if value:
            raise InputError(f"{name} says nothing about a stream: leave it out")
