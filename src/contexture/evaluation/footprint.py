"""What a learner costs: parameters, bytes kept between predictions, seconds per prediction; all of it measured."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import nn

from contexture.protocols import Pairs

Result = TypeVar("Result")


@runtime_checkable
class KeepsState(Protocol):
    """A learner that carries less, or more, than the examples themselves from one prediction to the next."""

    def state_bytes(self, context: Pairs) -> int:
        """The bytes kept for one episode after `context`."""
        ...


@runtime_checkable
class KeepsTokenState(Protocol):
    """A learner over tokens that carries something else than the tokens themselves."""

    def kept_bytes(self, length: int) -> int:
        """The bytes kept for one sequence after `length` tokens."""
        ...


def num_parameters(learner: object) -> int:
    """How many trained numbers the learner holds: those of every torch module within it, each counted once.

    >>> from torch import nn
    >>> num_parameters(nn.Linear(3, 2))
    8
    """
    found = {id(p): p.numel() for module in _modules(learner, depth=4) for p in module.parameters()}
    return sum(found.values())


def _modules(thing: object, *, depth: int) -> Iterator[nn.Module]:
    if isinstance(thing, nn.Module):
        yield thing
    elif depth:
        for part in _parts(thing):
            yield from _modules(part, depth=depth - 1)


def _parts(thing: object) -> Iterator[Any]:
    if isinstance(thing, Mapping):
        yield from thing.values()
    elif isinstance(thing, (tuple, list)):
        yield from thing
    elif is_dataclass(thing) and not isinstance(thing, type):
        yield from (getattr(thing, field.name) for field in fields(thing))
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        yield from vars(thing).values()


def state_bytes(learner: object, context: Pairs) -> int:
    """The bytes kept for one episode after `context`: as the learner measures them, or else the examples themselves."""
    if isinstance(learner, KeepsState):
        return learner.state_bytes(context)
    return (context.x.nbytes + context.y.nbytes) // max(1, context.batch)


class Stopwatch:
    """Seconds per prediction: the median over timed calls, the first of which is a warm-up where there are more."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def time(self, call: Callable[[], Result], *, num_predictions: int) -> Result:
        """Run `call`, note its seconds over the number of predictions it makes, and return its result."""
        start = time.perf_counter()
        result = call()
        self._seconds.append((time.perf_counter() - start) / max(1, num_predictions))
        return result

    @property
    def seconds(self) -> float:
        """The median; NaN before any call."""
        if not self._seconds:
            return float("nan")
        return statistics.median(self._seconds[1:] or self._seconds)
