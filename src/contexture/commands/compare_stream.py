"""`contexture compare FILE --stream --target COLUMN`: learners on a table's rows in their order, asked, then told."""

import argparse
import hashlib
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contexture.commands.console import console, say, share_bar
from contexture.commands.reading import reading
from contexture.errors import InputError
from contexture.store.atomic import make_folder, write_file

if TYPE_CHECKING:
    from contexture.evaluation.streams import Scores, StreamScore
    from contexture.tables.dataset import Dataset
    from contexture.training.streams.config import StreamConfig

RUNS = Path("contexture-runs")
WINDOWS = 40
LEAST_WINDOW = 50


def run(options: argparse.Namespace) -> int:
    """Score every learner that is not kept yet, print the table (or JSON), and draw the figure if one is asked for."""
    from contexture.evaluation.streams import StreamComparison, our_settings, score_ours, score_rival, scored
    from contexture.selection import choose_task
    from contexture.tasks.tables import TableTask

    _refuse_strays(options)
    task = choose_task(options.task, reading(options), {})
    if not isinstance(task, TableTask):
        raise InputError(f"--stream reads the rows of a table in their order, and {options.task!r} is none")
    data = task.dataset
    rows, targets = _rows(data), _targets(data)
    kind = data.schema.task
    say(*data.describe())
    window = max(LEAST_WINDOW, -(-len(rows) // WINDOWS))
    rivals, skipped = _rivals(kind)

    def ours(config: "StreamConfig") -> "Iterator[Scores]":
        return score_ours(config, rows, targets)

    def theirs(make: Callable[[], Any]) -> "Iterator[Scores]":
        return score_rival(make(), kind, rows, targets)

    runs: dict[str, Callable[[], Iterator[Scores]]] = {
        name: partial(ours, config) for name, config in our_settings(kind).items()
    }
    runs |= {name: partial(theirs, make) for name, make in rivals.items()}
    if options.learners:
        strays = [name for name in options.learners if name not in runs]
        if strays:
            raise InputError(f"no learner of streams is named {strays[0]!r}: there are {', '.join(runs)}")
        runs = {name: runs[name] for name in options.learners}
    folder = Path(options.run_dir) if options.run_dir else RUNS / f"stream-{Path(data.source).stem}"
    make_folder(folder)
    scores = []
    with share_bar("reading the stream") as advance:
        for name, begin in runs.items():
            path = folder / f"{name.replace(' ', '-')}-{_key(data, name, kind, window)}.json"
            kept = _kept(path)
            if kept is None:
                kept = scored(name, begin(), num_pairs=len(rows), window=window, advance=advance)
                write_file(path.resolve(), json.dumps(asdict(kept)).encode())
                if advance is None:
                    say(f"{name}: loss {kept.loss:.4f} in {kept.seconds:.0f} s")
            scores.append(kept)
    comparison = StreamComparison(
        source=data.source,
        target=data.schema.target.name,
        num_pairs=len(rows),
        window=window,
        scores=tuple(scores),
        skipped=skipped,
        command=shlex.join(["contexture", *sys.argv[1:]]),
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


def _rivals(kind: str) -> "tuple[dict[str, Callable[[], Any]], dict[str, str]]":
    """Persistence and river's learners; without river they are left out, with the reason."""
    from contexture.evaluation.streams import Persistence, river_rivals

    try:
        return {"persistence": Persistence, **river_rivals(kind)}, {}
    except InputError as reason:
        return {"persistence": Persistence}, {"river's learners": str(reason)}


def _rows(data: "Dataset") -> list[dict[str, Any]]:
    """Every row as a dictionary; a missing cell is left out, a category is its text."""
    columns = data.schema.features
    rows = []
    for cells in data.x.tolist():
        row = {}
        for column, cell in zip(columns, cells, strict=True):
            if not math.isnan(cell):
                row[column.name] = column.categories[int(cell)] if column.kind == "categorical" else cell
        rows.append(row)
    return rows


def _targets(data: "Dataset") -> list[Any]:
    if data.schema.task == "classification":
        return [data.classes[code] for code in data.y.tolist()]
    return [float(value) for value in data.y]


def _key(data: "Dataset", name: str, kind: str, window: int) -> str:
    """What decides a score: the rows, the learner's settings and the window."""
    from contexture.evaluation.streams import our_settings

    digest = hashlib.sha256(data.x.tobytes() + data.y.tobytes())
    digest.update(repr((name, our_settings(kind).get(name), window, data.classes)).encode())
    return digest.hexdigest()[:12]


def _kept(path: Path) -> "StreamScore | None":
    from contexture.evaluation.streams import StreamScore

    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return StreamScore(**{**held, "windows": tuple(held["windows"])})
    except (ValueError, TypeError, KeyError):
        return None  # written by something else: it is scored again
