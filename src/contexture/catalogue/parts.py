"""What papers bring and are measured with, from the cards: mixers, tasks and learners that the workbench holds."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from contexture.discovery import registered
from contexture.protocols import Card, LearnerCard, MixerCard, TaskCard

Room = Literal["mixers", "tasks", "learners"]
ROOMS: tuple[Room, ...] = ("mixers", "tasks", "learners")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A mixer, task or learner as its card describes it.

    source: its source in the literature, "" if none. facts: what else the card says, by what it is called. thing: the
    class or the function behind it, None for a bundled table.
    """

    room: Room
    name: str
    summary: str
    source: str
    year: int | None
    facts: Mapping[str, str]
    thing: Any = None

    @property
    def file(self) -> Path | None:
        """The file in which it is defined, None for a bundled table."""
        return Path(inspect.getfile(self.thing)) if self.thing is not None else None


@cache
def parts() -> Mapping[Room, Mapping[str, Part]]:
    """Every part by its room and its name: what `contexture list mixers | tasks | learners` prints."""
    found = {room: {name: _from_card(room, cls.card, cls) for name, cls in registered(room).items()} for room in ROOMS}
    del found["tasks"]["table"]
    found["tasks"] |= _tables()
    found["mixers"] |= _hybrids()
    return MappingProxyType({room: MappingProxyType(dict(sorted(held.items()))) for room, held in found.items()})


def _from_card(room: Room, card: Card, cls: type[Any]) -> Part:
    return Part(
        room=room,
        name=card.name,
        summary=card.summary,
        source=card.paper,
        year=card.year,
        facts=_facts(card),
        thing=cls,
    )


def _facts(card: Card) -> dict[str, str]:
    if isinstance(card, MixerCard):
        return {"order": "causal" if card.causal else "sees all", "state": card.state, "cost": card.cost}
    if isinstance(card, TaskCard):
        return {"episodes": card.episodes, "metric": card.metric}
    assert isinstance(card, LearnerCard)
    return {
        "kind": card.kind,
        "targets": ", ".join(sorted(card.targets)),
        "prefixes": {"exact": "every one in one call", "refit": "fitted anew"}[card.prequential],
        "unchanged by": ", ".join(sorted(card.invariances)) or "nothing claimed",
        "raw tables": "yes" if card.tables else "standardised first",
    }


def _tables() -> dict[str, Part]:
    from contexture.tasks.tables import BUNDLED

    source = "scikit-learn's bundled data"
    return {
        name: Part(room="tasks", name=name, summary=summary, source=source, year=None, facts={"episodes": "table"})
        for name, summary in BUNDLED.items()
    }


def _hybrids() -> dict[str, Part]:
    from contexture.models.hybrids import HYBRIDS

    return {
        hybrid.name: Part(
            room="mixers",
            name=hybrid.name,
            summary=(inspect.getdoc(hybrid.config) or "").partition("\n")[0],
            source=hybrid.paper,
            year=hybrid.year,
            facts={"pattern of layers": hybrid.pattern},
            thing=hybrid.config,
        )
        for hybrid in HYBRIDS
    }


def commands(part: Part) -> tuple[str, ...]:
    """What measures a part: mixers beside softmax on the recall ladder, learners on a task, mixers on its rungs."""
    from contexture.evaluation.ladder.rungs import RUNGS

    if part.room == "mixers":
        return (f"contexture compare recall --mixers softmax,{part.name}",) if "order" in part.facts else ()
    if part.room == "learners":
        return ()
    rungs = any(rung.task == part.name for rung in RUNGS.values())
    ladder = f"contexture compare recall --tasks {part.name} --mixers all"
    return (f"contexture compare {part.name}", *([ladder] if rungs else []))
