"""The recall ladder as a value and as JSON: where every mixer stands on every rung, at what size and cost."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contexture.evaluation.ladder.budget import MATCHES, Budget
from contexture.evaluation.ladder.cells import Cell, Entrant
from contexture.evaluation.ladder.rungs import Rung
from contexture.store import json_text

SCHEMA = "contexture.ladder/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placing:
    """One mixer on one rung of one panel; `status` says whether the other numbers are there.

    accuracy, low, high: share of scored positions answered rightly, mean over seeds with its 95 % interval. validation:
    the same on the validation seed for every optimiser and rate that was tried, None where the loss stopped being a
    number. seconds: processor time of one training. diverged: seeds whose loss stopped being a number; they count as 0.
    """

    mixer: str
    rung: str
    match: str
    status: str
    reason: str = ""
    accuracy: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: tuple[float, ...] = ()
    diverged: int = 0
    optimiser: str = ""
    rate: float = math.nan
    validation: Mapping[str, float | None] = field(default_factory=dict)
    steps: int = 0
    seconds: float = math.nan
    width: int = 0
    parameters: int = 0
    state_bytes: int = 0


_FIELDS = (
    "reason", "accuracy", "low", "high", "diverged", "optimiser", "rate", "validation", "steps", "seconds", "width",
    "parameters", "state_bytes",
)  # fmt: skip


def placing_of(cell: Cell, result: Mapping[str, Any]) -> Placing:
    """What a cell's result says."""
    known = {name: result[name] for name in _FIELDS if name in result}
    return Placing(
        mixer=cell.entrant.label,
        rung=cell.rung.name,
        match=cell.match,
        status=result["status"],
        seeds=tuple(result.get("seeds", ())),
        **known,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One mixer over all rungs of a panel: means where it has them all; state and parameters at their largest."""

    entrant: Entrant
    placings: Mapping[str, Placing]
    mean: float
    seconds: float
    state_bytes: int
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Mixers on rungs, in one panel for each thing that was made equal."""

    budget: Budget
    entrants: tuple[Entrant, ...]
    rungs: tuple[Rung, ...]
    matches: tuple[str, ...]
    placings: tuple[Placing, ...]
    chance: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    measured_at: str = ""
    complete: bool = True

    def standings(self, match: str) -> list[Standing]:
        """The mixers of a panel, best mean first; those without a mean last."""
        found = [self._standing(entrant, match) for entrant in self.entrants]
        shown = [one for one in found if any(placing.status == "done" for placing in one.placings.values())]
        return sorted(shown, key=lambda one: (math.isnan(one.mean), -one.mean if one.mean == one.mean else 0.0))

    def absent(self, match: str) -> list[Placing]:
        """The placings of a panel that have no accuracy, with their reasons."""
        return [placing for placing in self.placings if placing.match == match and placing.status != "done"]

    def _standing(self, entrant: Entrant, match: str) -> Standing:
        placings = {one.rung: one for one in self.placings if one.match == match and one.mixer == entrant.label}
        done = [placing for placing in placings.values() if placing.status == "done"]
        whole = len(done) == len(self.rungs)
        return Standing(
            entrant=entrant,
            placings=placings,
            mean=statistics.fmean(placing.accuracy for placing in done) if whole else math.nan,
            seconds=statistics.fmean(placing.seconds for placing in done) if done else math.nan,
            state_bytes=max((placing.state_bytes for placing in done), default=0),
            parameters=max((placing.parameters for placing in done), default=0),
        )

    def document(self) -> dict[str, Any]:
        """What `--json` prints: plain values for JSON, null where there is no value."""
        budget = {name: _plain(getattr(self.budget, name)) for name in type(self.budget).__dataclass_fields__}
        return {
            "schema": SCHEMA,
            "budget": budget,
            "matches": list(self.matches),
            "rungs": [
                {
                    "name": rung.name,
                    "task": rung.task,
                    "settings": dict(rung.settings),
                    "chance": 1 - self.chance[rung.name] if rung.name in self.chance else None,
                }
                for rung in self.rungs
            ],
            "mixers": [_mixer(entrant) for entrant in self.entrants],
            "placings": [
                {name: _plain(getattr(placing, name)) for name in Placing.__dataclass_fields__}
                for placing in self.placings
            ],
            "command": self.command,
            "measured_at": self.measured_at,
            "complete": self.complete,
            "environment": dict(self.environment),
        }

    def to_json(self) -> str:
        """The document as JSON text."""
        return json_text.dumps(self.document(), what="the ladder", finite=True, indent=1)


def _mixer(entrant: Entrant) -> dict[str, Any]:
    card = entrant.card
    names = ("name", "summary", "paper", "year", "state", "cost")
    return {"label": entrant.label, **{name: getattr(card, name) for name in names}}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def in_order(matches: Sequence[str]) -> tuple[str, ...]:
    """Panels in the order in which they are shown."""
    return tuple(match for match in MATCHES if match in matches)
