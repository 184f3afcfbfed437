"""What was recorded of several mixers or learners side by side, read from the published results.

    benchmarks/mixer_speed.json                  times, state and memory of a layer of each mixer
    benchmarks/mixer_lengths.json                the same of long sequences
    recall_*.json                                accuracy on the rungs of the recall ladder
    linear_regression_transformer.json           excess error of learners of linear functions
    tables.json                                  loss of learners of tables, by rows learnt from

A measure is one number for each of several names, with its interval where one was recorded. Where two files hold the
same one, that of the file named first above counts.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contexture.catalogue.parts import Room
from contexture.errors import InputError
from contexture.reports.numbers import count, number, seconds, size
from contexture.store import json_text

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A number with its interval, where there is one. note: what it was measured of, where names alone do not say."""

    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One quantity of several mixers or learners; `values` from the best to the worst.

    task: the task that it was measured on, "" for none. length: tokens of a sequence, 0 for none. quantity: what is
    measured at several lengths, "" for none.
    rules: levels to compare with, by name. log: whether it is drawn on a logarithmic axis. missing: why a name that was
    asked for has no number, by name.
    """

    key: str
    title: str
    about: str
    room: Room
    task: str = ""
    length: int = 0
    quantity: str = ""
    unit: str = ""
    lower_is_better: bool = True
    log: bool = False
    values: Mapping[str, Value]
    rules: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
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

    def place(self, name: str) -> int:
        """The place of a name, 1 for the best; numbers that read the same share one."""
        shown = [self.text(value.value) for value in self.values.values()]
        return shown.index(self.text(self.values[name].value)) + 1


def read_measures(folder: Path) -> tuple[Measure, ...]:
    """Every measure of a folder of results, the first where two files hold the same.

    InputError names a file that cannot be read as what its name says.
    """
    found: dict[str, Measure] = {}
    for pattern, reader in _READERS.items():
        for path in sorted(folder.glob(pattern)):
            try:
                document = json_text.loads(path.read_bytes())
                for measure in reader(document, path.stem):
                    if measure.values:
                        found.setdefault(measure.key, _best_first(measure))
            except OSError as error:
                raise InputError(f"the result {path} cannot be read: {error.strerror or error}") from error
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise InputError(f"the result {path} is not what its name says: {error!r}") from error
    return tuple(found.values())


def by_quantity(measures: Iterable[Measure]) -> dict[str, dict[int, Measure]]:
    """Measures that were made at several lengths, by quantity and by length, the shortest first."""
    found: dict[str, dict[int, Measure]] = {}
    for measure in sorted(measures, key=lambda measure: measure.length):
        if measure.quantity:
            found.setdefault(measure.quantity, {})[measure.length] = measure
    return found


def _best_first(measure: Measure) -> Measure:
    from dataclasses import replace

    sign = 1 if measure.lower_is_better else -1
    order = sorted(measure.values.items(), key=lambda item: (sign * item[1].value, item[0]))
    return replace(measure, values=dict(order))


def _origin(document: Document) -> dict[str, Any]:
    return {"command": document.get("command", ""), "environment": document.get("environment", {})}


_SPEED = {
    "forward": ("forward", "seconds", ""),
    "forward_backward": ("forward and backward", "seconds", ""),
    "decode": ("one decoded token", "seconds", ""),
    "state_bytes": ("state of a sequence", "bytes", "what is kept of one sequence after its last token"),
    "peak_bytes": ("peak memory", "bytes", "what a forward and backward hold at most, inputs and parameters aside"),
}


def _speed(document: Document, stem: str) -> Iterator[Measure]:
    shape = document["shape"]
    layer = f"One layer of {shape['num_heads']} heads of {shape['dim']}, batch {shape['batch']}"
    clock = (
        "1 thread, processor time" if document["threads"] == 1 else f"{document['threads']} threads, time by the clock"
    )
    for dtype in document["dtypes"]:
        for length in document["lengths"]:
            rows = [row for row in document["rows"] if row["length"] == length and row["dtype"] == dtype]
            for name, (title, unit, what) in _SPEED.items():
                quantity = title if dtype == "fp32" else f"{title}, {dtype}"
                yield Measure(
                    key=f"{name.replace('_', '-')}-{length}-{dtype}",
                    title=f"{quantity}, {length:,} tokens",
                    about=f"{layer}, {dtype}: {what or clock}.",
                    room="mixers",
                    length=length,
                    quantity=quantity,
                    unit=unit,
                    log=True,
                    values={row["name"]: Value(value=row[name]) for row in rows if row.get(name)},
                    missing={row["name"]: row["reason"] for row in rows if row.get("reason")},
                    **_origin(document),
                )


def _ladder(document: Document, stem: str) -> Iterator[Measure]:
    budget = document["budget"]
    for rung in document["rungs"]:
        for match in document["matches"]:
            placed = [p for p in document["placings"] if p["rung"] == rung["name"] and p["match"] == match]
            settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in rung["settings"].items())
            yield Measure(
                key=f"recall-ladder-{rung['name']}-{match}",
                title=f"accuracy on {rung['name']}" + ("" if match == "parameters" else f", equal {match}"),
                about=f"Share of answers that are right ({settings}): {budget['num_layers']} layers, {budget['steps']} "
                f"steps, {budget['num_seeds']} seeds with the 95 % interval of their mean, equal {match}.",
                room="mixers",
                task=rung["task"],
                unit="share",
                lower_is_better=False,
                values={
                    p["mixer"]: Value(value=p["accuracy"], low=p["low"], high=p["high"], note=_model(p))
                    for p in placed
                    if p["status"] == "done"
                },
                missing={p["mixer"]: p["reason"] for p in placed if p["status"] != "done"},
                rules={"chance": rung["chance"]},
                **_origin(document),
            )


def _model(placing: Document) -> str:
    """What stood on a rung: its size, its state, and the optimiser that was best for it."""
    return (
        f"width {placing['width']}, {count(placing['parameters'])} parameters, "
        f"{size(placing['state_bytes'])} of state, {placing['optimiser']} at {placing['rate']:g}"
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
                about=f"Mean over {document['splits']} splits, the interval from the least to the largest; "
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
    "benchmarks/mixer_lengths*.json": _speed,
    "recall_*.json": _ladder,
    "linear_regression_transformer.json": _linear,
    "tables.json": _tables,
}
