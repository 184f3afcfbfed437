"""The rungs of the recall ladder: tasks over tokens, each at a size at which mechanisms part.

A rung is a task with settings. Recall rungs ask for more and more pairs; the others ask for order (copying), selection,
phrases, aggregation, and a state that changes at every token.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contexture.errors import InputError
from contexture.protocols import Task, Tokens
from contexture.randomness import generator
from contexture.training.config import TaskChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """A task with settings, under a name of its own."""

    name: str
    task: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def choice(self) -> TaskChoice:
        """The task as a training configuration names it."""
        return TaskChoice(name=self.task, settings=dict(self.settings))

    def build(self) -> Task:
        """The task itself."""
        return self.choice.build()

    def drawn(self) -> Tokens:
        """One sequence, for its length and vocabulary."""
        tokens = self.build().sample(1, generator=generator("rung", self.name))
        assert isinstance(tokens, Tokens)
        return tokens


def _mqar(num_pairs: int, *, length: int, vocabulary: int) -> Rung:
    settings = {"vocabulary": vocabulary, "length": length, "num_pairs": num_pairs}
    return Rung(name=f"mqar-{num_pairs}", task="mqar", settings=settings)


RUNGS: Mapping[str, Rung] = {
    rung.name: rung
    for rung in (
        Rung(name="induction", task="induction", settings={"vocabulary": 16, "length": 24}),
        _mqar(4, length=32, vocabulary=32),
        _mqar(8, length=48, vocabulary=64),
        _mqar(16, length=64, vocabulary=64),
        Rung(
            name="noisy-recall",
            task="noisy-recall",
            settings={"num_keys": 8, "num_values": 8, "num_noise": 16, "length": 48, "noise": 0.4},
        ),
        Rung(
            name="fuzzy-recall",
            task="fuzzy-recall",
            settings={"num_keys": 8, "num_values": 8, "num_pairs": 6, "length": 64, "longest": 2},
        ),
        Rung(
            name="phonebook",
            task="phonebook",
            settings={
                "num_letters": 8,
                "num_digits": 8,
                "num_entries": 8,
                "num_queries": 4,
                "name_length": 2,
                "number_length": 2,
            },
        ),
        Rung(name="copying", task="copying", settings={"vocabulary": 16, "num_tokens": 16}),
        Rung(
            name="selective-copying",
            task="selective-copying",
            settings={"vocabulary": 16, "length": 24, "num_tokens": 8},
        ),
        Rung(name="compression", task="compression", settings={"base": 2, "num_digits": 6}),
        Rung(name="running-parity", task="running-parity", settings={"length": 24}),
        Rung(name="permutations-3", task="permutations", settings={"degree": 3, "length": 16}),
        Rung(name="permutations-5", task="permutations", settings={"degree": 5, "length": 12}),
    )
}
"""Every rung, from recall of one token to the tracking of a state."""


def choose_rungs(names: Iterable[str]) -> tuple[Rung, ...]:
    """Rungs by their names, or all those of a task by its name; InputError for an unknown one."""
    chosen: dict[str, Rung] = {}
    for name in names:
        found = {rung.name: rung for rung in RUNGS.values() if name in (rung.name, rung.task)}
        if not found:
            raise InputError(f"no rung of the ladder is named {name!r}: there are {', '.join(RUNGS)}")
        chosen |= found
    return tuple(rung for rung in RUNGS.values() if rung.name in chosen)
