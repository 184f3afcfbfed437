"""A comparison of learners as a value and as JSON: what was measured, how, where, and how to do it again."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contexture.errors import InputError
from contexture.evaluation.intervals import LEVEL
from contexture.evaluation.matching import Distances
from contexture.evaluation.metrics import Metric, find
from contexture.protocols import Measurement

SCHEMA = "contexture.comparison/1"

_LEARNER_KEYS = ("name", "kind", "n", "seconds", "parameters", "state_bytes")
_CURVE_KEYS = ("value", "low", "high")
_PLAIN_DETAILS = (
    "counted",
    "oracle",
    "chance",
    "settings",
    "skipped",
    "timing",
    "environment",
    "command",
    "measured_at",
    "complete",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Several learners measured on the same episodes of one task.

    counted: what a context size counts. measurements: in the order asked, the oracle's among them under the name
    `oracle` (None where none is known). tied: at each context size, the best learner other than the oracle and those
    that a paired interval cannot tell from it. chance: the metric of the best predictor that ignores x and the context.
    left_out: context sizes that the task cannot hold; skipped: learners that could not be scored; each with its reason.
    notes: learner -> what was odd. measured_at: date and time in UTC. complete: False if it was interrupted before
    every learner was done.
    """

    task: str
    metric: str
    context: tuple[int, ...]
    measurements: tuple[Measurement, ...]
    counted: str = "examples"
    level: float = LEVEL
    method: str = ""
    oracle: str | None = None
    chance: float | None = None
    tied: tuple[tuple[str, ...], ...] = ()
    distances: Distances = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[int, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    timing: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    seeds: tuple[int, ...] = ()
    measured_at: str = ""
    complete: bool = True

    @property
    def scoring(self) -> Metric:
        """The metric itself."""
        return find(self.metric)

    def of(self, name: str) -> Measurement:
        """The measurement of that learner."""
        return next(m for m in self.measurements if m.name == name)

    def shown(self, name: str) -> str:
        """The learner's name as readers see it: the oracle is said to be one."""
        return f"{name} (oracle)" if name == self.oracle and not name.endswith("(oracle)") else name

    @property
    def axis(self) -> str:
        """What a context size is, in words."""
        return f"{self.counted} in context" if self.counted in ("examples", "tokens") else self.counted

    @property
    def entrants(self) -> str:
        """What is compared, in a word."""
        return "learners" if self.counted in ("examples", "tokens") else "agents"

    @property
    def contestants(self) -> tuple[Measurement, ...]:
        """Every measurement but the oracle's."""
        return tuple(m for m in self.measurements if m.name != self.oracle)

    def document(self) -> dict[str, Any]:
        """What `--json` prints: plain values for JSON, null where a learner has no value."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "metric": self.metric,
            "lower_is_better": self.scoring.lower_is_better,
            "context": list(self.context),
            "interval": {"level": self.level, "method": self.method},
            "learners": [_learner(m) for m in self.measurements],
        }

    def to_json(self) -> str:
        """The document as JSON text."""
        return json.dumps(self.document(), allow_nan=False, indent=1)

    def record(self) -> dict[str, Any]:
        """The document with everything else that is known, under "details": what a report embeds."""
        details = {
            "counted": self.counted,
            "oracle": self.oracle,
            "chance": _number(self.chance),
            "tied": [list(names) for names in self.tied],
            "distances": {
                learner: {reference: [_number(v) for v in values] for reference, values in row.items()}
                for learner, row in self.distances.items()
            },
            "settings": dict(self.settings),
            "left_out": {str(size): reason for size, reason in self.left_out.items()},
            "skipped": dict(self.skipped),
            "notes": {name: list(said) for name, said in self.notes.items()},
            "findings": list(self.findings),
            "timing": self.timing,
            "environment": dict(self.environment),
            "command": self.command,
            "seeds": list(self.seeds),
            "measured_at": self.measured_at,
            "complete": self.complete,
        }
        return {**self.document(), "details": details}

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """The comparison that `document` or `record` was written from; InputError for anything else."""
        try:
            return _read(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is not a comparison of schema {SCHEMA}: {error}") from error


def _read(document: Mapping[str, Any]) -> Comparison:
    if document["schema"] != SCHEMA:
        raise ValueError(f"its schema is {document['schema']!r}")
    context = tuple(document["context"])
    details = _details(document["details"]) if "details" in document else {}
    return Comparison(
        task=document["task"],
        metric=document["metric"],
        context=context,
        measurements=tuple(_measurement(learner, context) for learner in document["learners"]),
        level=document["interval"]["level"],
        method=document["interval"]["method"],
        **details,
    )


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    distances = {
        learner: {reference: _floats(values) for reference, values in row.items()}
        for learner, row in details["distances"].items()
    }
    return {
        **{key: details[key] for key in _PLAIN_DETAILS},
        "tied": tuple(tuple(names) for names in details["tied"]),
        "distances": distances,
        "left_out": {int(size): reason for size, reason in details["left_out"].items()},
        "notes": {name: tuple(said) for name, said in details["notes"].items()},
        "findings": tuple(details["findings"]),
        "seeds": tuple(details["seeds"]),
    }


def _learner(measurement: Measurement) -> dict[str, Any]:
    plain = {key: getattr(measurement, key) for key in _LEARNER_KEYS}
    curves = {key: [_number(v) for v in getattr(measurement, key)] for key in _CURVE_KEYS}
    ordered = {"name": plain["name"], "kind": plain["kind"], **curves, **plain}
    return {**ordered, "seconds": _number(measurement.seconds)}


def _measurement(learner: Mapping[str, Any], context: tuple[int, ...]) -> Measurement:
    seconds = learner["seconds"]
    return Measurement(
        name=learner["name"],
        kind=learner["kind"],
        context=context,
        value=_floats(learner["value"]),
        low=_floats(learner["low"]),
        high=_floats(learner["high"]),
        n=learner["n"],
        seconds=math.nan if seconds is None else seconds,
        parameters=learner["parameters"],
        state_bytes=learner["state_bytes"],
    )


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)
