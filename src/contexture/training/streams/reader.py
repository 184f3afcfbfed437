"""Reading pairs as a model takes them: slots for features, codes for labels, and scales from the stream so far.

A number has a slot under its name; a text or a truth value has one for each value that it takes, holding one. A
missing number is absent, and so is what was never met: a feature gets its slot with the first pair that has it, and is
read from the next one on. Numbers are shown in standard deviations from the mean of what came before and themselves; a
numeric target in those of the targets before it.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from contexture.errors import InputError
from contexture.training.streams.running import MOST, Running

Features = Mapping[str, Any]


class Pair(NamedTuple):
    """Scaled values and which are there, [slots]; the target's code or scaled value; the labels known before it."""

    values: np.ndarray
    present: np.ndarray
    y: float
    known: int


class PairReader:
    """What is known of a stream's features, labels and scales."""

    def __init__(self, target: Literal["classification", "regression"], *, num_slots: int) -> None:
        self.target = target
        self.slots: dict[str, int] = {}
        self.labels: list[Any] = []
        self.codes: dict[Any, int] = {}
        self.scale, self.target_scale = Running.of(num_slots), Running.of(1)

    @property
    def num_slots(self) -> int:
        """Room for features."""
        return len(self.scale.count)

    @property
    def law(self) -> tuple[float, float]:
        """The mean and standard deviation of the targets so far; 0 and 1 before any."""
        return float(self.target_scale.mean[0]), float(self.target_scale.unit[0])

    def show(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Values and presence of the features that are known, [slots]; nothing changes."""
        values, present = self._row(features)
        return self.scale.scaled(values, present), present

    def meet(self, features: Features, y: Any) -> None:
        """Check a pair, and give a code to a new label; InputError for what is neither number nor text."""
        for name, value in features.items():
            slot_of(name, value)
        if self.target == "regression":
            _number(y)
        elif y not in self.codes:
            if not isinstance(y, str | bool | int | float | np.generic):
                raise InputError(f"a class is a text, a truth value or a number, not {y!r}")
            self.codes[y] = len(self.labels)
            self.labels.append(y)

    def take(self, features: Features, y: Any, *, known: int) -> Pair:
        """The pair, as it was shown before its target was known; scales take it in, and new features get slots."""
        values, present = self._row(features)
        scaled = self.scale.scaled(values, present)
        self.scale.add(values, present)
        # In the order of their names, so that the order in which they are given does not matter.
        keys = [slot_of(name, value)[0] for name, value in features.items()]
        for key in sorted(key for key in keys if key not in self.slots):
            self.slots[key] = len(self.slots)
        if self.target == "classification":
            return Pair(scaled, present, float(self.codes[y]), known)
        number, (mean, unit) = _number(y), self.law
        self.target_scale.add(np.array([number]), np.array([True]))
        return Pair(scaled, present, float(np.clip((number - mean) / unit, -MOST, MOST)), 0)

    def _row(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        room = self.num_slots
        values, present = [0.0] * room, [False] * room
        for name, value in features.items():
            key, number = slot_of(name, value)
            place = self.slots.get(key, room)
            if place < room and math.isfinite(number):
                values[place], present[place] = number, True
        return np.array(values), np.array(present)


def slot_of(name: Any, value: Any) -> tuple[str, float]:
    """The slot of a feature, and the number that it holds there."""
    if type(value) is float:  # nearly always, and a check of its own is a third of the time
        return str(name), value
    if isinstance(value, bool | np.bool_ | str):
        return f"{name}={value}", 1.0
    try:
        return str(name), np.nan if value is None else float(value)
    except (TypeError, ValueError):
        raise InputError(f"the feature {name!r} is {value!r}, which is neither a number nor a text") from None


def _number(y: Any) -> float:
    try:
        number = float(y)
    except (TypeError, ValueError):
        raise InputError(f"the target {y!r} is not a number") from None
    if not np.isfinite(number):
        raise InputError(f"a target of {number} cannot be learned from")
    return number


def widened(pair: Pair, num_slots: int) -> Pair:
    """The same pair with room for more features."""
    more = num_slots - len(pair.values)
    return pair._replace(values=np.pad(pair.values, (0, more)), present=np.pad(pair.present, (0, more)))
