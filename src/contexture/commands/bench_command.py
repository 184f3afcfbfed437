"""`contexture bench mixers`: how fast mixers are, and what they hold, on this machine."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from contexture.commands.console import console, say, share_bar
from contexture.errors import InputError
from contexture.store.atomic import write_file

ALL = "all"


def run(options: argparse.Namespace) -> int:
    """Measure, print the table (or JSON) on standard output, and write what was asked for."""
    from contexture.tables.write import check_output

    for path in (options.output, options.figure, options.markdown):
        if path is not None:
            check_output(path)
    if options.figure is not None and not options.figure.endswith(".svg"):
        raise InputError(f"figures are written as SVG: give a name that ends in .svg rather than {options.figure!r}")
    from contexture.evaluation.speed import kept, measure_speed, require_alike
    from contexture.reports.speed import figure, page, print_speed
    from contexture.reports.svg import standalone
    from contexture.store.results import read_result, write_result

    before = None
    if options.keep:
        if options.output is None:
            raise InputError("--keep keeps rows of a file: name it with -o")
        before = read_result(options.output)
        require_alike(before, lengths=options.length, dtypes=options.dtype, threads=options.threads)
    with share_bar("measuring") as progress:
        speed = measure_speed(
            _chosen(options.mixers),
            lengths=options.length,
            dtypes=options.dtype,
            threads=options.threads,
            longest_call=options.longest_call,
            command=shlex.join(["contexture", *sys.argv[1:]]),
            progress=progress,
        )
    if before is not None:
        speed = kept(before, speed)
    if options.json:
        json.dump({"schema": 1, **speed.to_document()}, sys.stdout, indent=2)
        print()
    else:
        print_speed(speed, console(stderr=False))
    if options.output is not None:
        write_result(options.output, speed.to_document())
        say(f"written: {options.output}")
    if options.markdown is not None:
        write_file(Path(options.markdown).resolve(), page(speed).encode())
        say(f"tables: {options.markdown}")
    if options.figure is not None and speed.timings:
        write_file(Path(options.figure).resolve(), standalone(figure(speed, dtype=options.dtype[0])).encode())
        say(f"figure: {options.figure}")
    if not speed.complete:
        raise KeyboardInterrupt("the mixers that were done are above")
    return 0


def _chosen(names: tuple[str, ...]) -> dict[str, type[Any]]:
    """The causal mixers asked for, by name."""
    from contexture.discovery import find, registered
    from contexture.evaluation.ladder.cells import entrants

    if names == (ALL,):
        return {name: mixer for name, mixer in registered("mixers").items() if mixer.card.causal}
    return {one.label: find(one.spec, "mixers") for one in entrants(names)}
