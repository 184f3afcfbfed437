"""What was recorded of several mixers or learners side by side, read from the published results.

    benchmarks/mixer_speed.json                  times, state and memory of a layer of each mixer
    recall_*.json                                accuracy on the rungs of the recall ladder
    linear_regression_transformer.json           excess error of learners of linear functions
    tables.json                                  loss of learners of tables, by rows learnt from

A measure is one number for each of several names, with its interval where one was recorded.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contexture.catalogue.parts import Room
from contexture.errors import InputError
from contexture.reports.numbers import number, seconds, size
from contexture.store import json_text

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A number with its interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One quantity of several mixers or learners; `values` from the best to the worst.

    task: the task that it was measured on, "" for none. length: tokens of a sequence, 0 for none.
    rules: levels to compare with, by name. log: whether it is drawn on a logarithmic axis.
    """

    key: str
    title: str
    about: str
    room: Room
    task: str = ""
    length: int = 0
    unit: str = ""
    lower_is_better: bool = True
    log: bool = False
    values: Mapping[str, Value]
    rules: Mapping[str, float] = field(default_factory=dict)
    command: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    def text(self, value: float) -> str:
        """A number of this measure in its unit."""
        formats: dict[str, Callable[[float], str]] = {
            "seconds": seconds,
            "bytes": lambda v: size(round(v)),
            "share": lambda v: f"{100 * v:.1f} %",
        }
        return formats.get(self.unit, number)(value)


def read_measures(folder: Path) -> tuple[Measure, ...]:
    """Every measure of a folder of results; InputError names a file that cannot be read as what its name says."""
    found: list[Measure] = []
    for pattern, reader in _READERS.items():
        for path in sorted(folder.glob(pattern)):
            try:
                document = json_text.loads(path.read_bytes())
                found += [_best_first(measure) for measure in reader(document, path.stem)]
            except OSError as error:
                raise InputError(f"the result {path} cannot be read: {error.strerror or error}") from error
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise InputError(f"the result {path} is not what its name says: {error!r}") from error
    return tuple(measure for measure in found if measure.values)


def _best_first(measure: Measure) -> Measure:
    from dataclasses import replace

    sign = 1 if measure.lower_is_better else -1
    order = sorted(measure.values.items(), key=lambda item: (sign * item[1].value, item[0]))
    return replace(measure, values=dict(order))


def _origin(document: Document) -> dict[str, Any]:
    return {"command": document.get("command", ""), "environment": document.get("environment", {})}


_SPEED = {
    "forward": ("forward", "seconds"),
    "forward_backward": ("forward and backward", "seconds"),
    "decode": ("one decoded token", "seconds"),
    "state_bytes": ("state of a sequence", "bytes"),
    "peak_bytes": ("peak memory", "bytes"),
}


def _speed(document: Document, stem: str) -> Iterator[Measure]:
    shape = document["shape"]
    about = (
        f"One layer of {shape['num_heads']} heads of {shape['dim']}, batch {shape['batch']}, "
        f"{document['threads']} thread{'s' if document['threads'] > 1 else ''}, processor time"
    )
    for dtype in document["dtypes"]:
        for length in document["lengths"]:
            rows = [row for row in document["rows"] if row["length"] == length and row["dtype"] == dtype]
            for name, (title, unit) in _SPEED.items():
                yield Measure(
                    key=f"{name.replace('_', '-')}-{length}-{dtype}",
                    title=f"{title}, {length:,} tokens" + ("" if dtype == "fp32" else f", {dtype}"),
                    about=f"{about}, {dtype}.",
                    room="mixers",
                    length=length,
                    unit=unit,
                    log=True,
                    values={row["name"]: Value(value=row[name]) for row in rows if row.get(name)},
                    **_origin(document),
                )


def _ladder(document: Document, stem: str) -> Iterator[Measure]:
    budget = document["budget"]
    for rung in document["rungs"]:
        for match in document["matches"]:
            placed = [
                p
                for p in document["placings"]
                if p["rung"] == rung["name"] and p["match"] == match and p["status"] == "done"
            ]
            settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in rung["settings"].items())
            yield Measure(
                key=f"{stem.replace('_', '-')}-{rung['name']}-{match}",
                title=f"accuracy on {rung['name']}",
                about=f"Share of answers that are right ({settings}): {budget['num_layers']} layers, "
                f"{budget['steps']} steps, {budget['num_seeds']} seeds, equal {match}.",
                room="mixers",
                task=rung["task"],
                unit="share",
                lower_is_better=False,
                values={p["mixer"]: Value(value=p["accuracy"], low=p["low"], high=p["high"]) for p in placed},
                rules={"chance": rung["chance"]},
                **_origin(document),
            )


def _linear(document: Document, stem: str) -> Iterator[Measure]:
    task = document["task"]
    for examples in (4, 8, 16, 24):
        yield Measure(
            key=f"excess-{task['name']}-{examples}",
            title=f"excess error after {examples} examples",
            about=f"Squared error beyond the noise, {document['prompts']:,} prompts of {task['num_features']} numbers.",
            room="learners",
            task=task["name"],
            log=True,
            values={
                name: Value(value=held["excess"][examples])
                for name, held in document["learners"].items()
                if held["excess"][examples] > 0
            },
            **_origin(document),
        )


def _tables(document: Document, stem: str) -> Iterator[Measure]:
    for table, about in document["tables"].items():
        sizes = dict.fromkeys(size for losses in about["losses"].values() for size in losses)
        for rows in sizes:
            held = {name: losses[rows] for name, losses in about["losses"].items() if rows in losses}
            yield Measure(
                key=f"table-{table}-{rows}",
                title=f"{about['metric'].replace('-', ' ')}, {rows} rows",
                about=f"Mean over {document['splits']} splits, from the least to the largest; "
                f"a table of {about['rows']:,} rows.",
                room="learners",
                task=table,
                values={
                    name: Value(value=statistics.fmean(losses), low=min(losses), high=max(losses))
                    for name, losses in held.items()
                },
                **_origin(document),
            )


_READERS: Mapping[str, Callable[[Document, str], Iterator[Measure]]] = {
    "benchmarks/mixer_speed*.json": _speed,
    "recall_*.json": _ladder,
    "linear_regression_transformer.json": _linear,
    "tables.json": _tables,
}
