"""All learners that belong beside each other on one stream, scored one after another; those that are done are kept.

A score is kept in a file whose name holds what decided it: the pairs, the learner's settings and the window.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from contexture.errors import InputError
from contexture.evaluation.streams import (
    Persistence,
    Scores,
    StreamComparison,
    StreamScore,
    our_settings,
    river_rivals,
    score_ours,
    score_rival,
    scored,
)
from contexture.store.atomic import make_folder, write_file
from contexture.tasks.streams import Stream

WINDOWS = 40
LEAST_WINDOW = 50

Advance = Callable[[float, str], None]


def compare_on_stream(
    stream: Stream,
    folder: str | Path,
    *,
    learners: Sequence[str] | None = None,
    seed: int = 0,
    command: str = "",
    advance: Advance | None = None,
    done: Callable[[StreamScore], None] | None = None,
) -> StreamComparison:
    """Score ours, persistence and river's learners (where it is installed), or those of them that are named.

    done: told of each score that was not kept already. InputError for a name that is none.
    """
    window = max(LEAST_WINDOW, -(-len(stream.rows) // WINDOWS))
    runs, skipped = _runs(stream, seed=seed)
    if learners:
        strays = [name for name in learners if name not in runs]
        if strays:
            raise InputError(f"no learner of streams is named {strays[0]!r}: there are {', '.join(runs)}")
        runs = {name: runs[name] for name in learners}
    make_folder(Path(folder))
    scores = []
    for name, begin in runs.items():
        path = Path(folder) / f"{name.replace(' ', '-')}-{_key(stream, name, window, seed)}.json"
        score = _kept(path)
        if score is None:
            score = scored(name, begin(), num_pairs=len(stream.rows), window=window, advance=advance)
            write_file(path.resolve(), json.dumps(asdict(score)).encode())
            if done is not None:
                done(score)
        scores.append(score)
    return StreamComparison(
        source=stream.source,
        target=stream.target,
        num_pairs=len(stream.rows),
        window=window,
        drifts=stream.drifts,
        scores=tuple(scores),
        skipped=skipped,
        seed=seed,
        command=command,
    )


def _runs(stream: Stream, *, seed: int) -> tuple[dict[str, Callable[[], Iterator[Scores]]], dict[str, str]]:
    """What begins each learner's way along the stream; and what is left out, with the reason."""
    rivals: dict[str, Callable[[], Any]] = {"persistence": Persistence}
    skipped = {}
    try:
        rivals |= river_rivals(stream.kind, seed=seed)
    except InputError as reason:
        skipped["river's learners"] = str(reason)

    def theirs(make: Callable[[], Any]) -> Iterator[Scores]:
        return score_rival(make(), stream.kind, stream.rows, stream.targets)

    ours = {
        name: partial(score_ours, config, stream.rows, stream.targets)
        for name, config in our_settings(stream.kind, seed=seed).items()
    }
    return {**ours, **{name: partial(theirs, make) for name, make in rivals.items()}}, skipped


def _key(stream: Stream, name: str, window: int, seed: int) -> str:
    settings = our_settings(stream.kind, seed=seed).get(name)
    return hashlib.sha256(repr((stream.digest, name, settings, window, seed)).encode()).hexdigest()[:12]


def _kept(path: Path) -> StreamScore | None:
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return StreamScore(**{**held, "windows": tuple(held["windows"]), "hits": tuple(held["hits"])})
    except (ValueError, TypeError, KeyError):
        return None  # written by something else: it is scored again
