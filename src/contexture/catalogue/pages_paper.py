"""The page of one paper: what it says, what was measured of it, the command that measures it again, the code."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from contexture.catalogue import code as sources
from contexture.catalogue.export import bibtex
from contexture.catalogue.library import Claimed, Library, Published, Record
from contexture.catalogue.pages import VERDICT_TITLES
from contexture.catalogue.parts import ROOMS, Part, Room
from contexture.catalogue.view import View, render
from contexture.reports.numbers import size

MACHINE = (
    "processor",
    "instructions",
    "cores",
    "memory_gib",
    "device",
    "threads",
    "system",
    "python",
    "torch",
    "commit",
)
MOST_RELATED = 8
_MACHINE_TITLES = {"memory_gib": "memory", "torch": "PyTorch", "python": "Python"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownClaim:
    """A claim with everything that its part of the page shows."""

    claimed: Claimed
    figure: Markup
    command: str
    settings: Mapping[str, str]
    machine: Mapping[str, str]
    code: list[sources.Excerpt]


def paper(library: Library, key: str, view: View) -> str:
    """The page of a paper; InputError for an unknown key."""
    record = library.record(key)
    return render(
        "paper.html",
        view,
        library=library,
        record=record,
        entry=record.entry,
        claims=[_shown(library, record, claim) for claim in record.claims],
        command=command(record),
        uses={room: _known(library, record, room) for room in ROOMS},
        mechanisms=_mechanisms(library, record),
        related=related(library, record),
        bibtex=bibtex(record),
        code=sources.code_name(record.file) if record.file else None,
        verdict_titles=VERDICT_TITLES,
    )


def command(record: Record, claim: Claimed | None = None) -> str:
    """What measures a paper, or one claim of it, again; "" where there is no code."""
    if record.paper is None or (claim is not None and claim.code is None):
        return ""
    scale = next((c.published.result.scale for c in record.claims if c.published), "smoke")
    if claim is not None and claim.published:
        scale = claim.published.result.scale
    only = f" --only {shlex.quote(claim.name)}" if claim is not None else ""
    return f"contexture claim {record.key}{only} --scale {scale}"


def related(library: Library, record: Record) -> list[Record]:
    """The papers that an entry names as close to it, then the newest that name it; MOST_RELATED at most."""
    named = [library.papers[key] for key in record.entry.related if key in library.papers]
    naming = [other for other in library.papers.values() if record.key in other.entry.related]
    return list({one.key: one for one in (*named, *naming)}.values())[:MOST_RELATED]


def _known(library: Library, record: Record, room: Room) -> list[Part]:
    return [library.parts[room][name] for name in record.uses(room) if name in library.parts[room]]


def _mechanisms(library: Library, record: Record) -> list[tuple[Part, sources.Excerpt]]:
    """The mixers that the entry itself names, with their code."""
    named = [library.parts["mixers"][name] for name in record.entry.mixers if name in library.parts["mixers"]]
    found = [(part, sources.excerpt(part.thing)) for part in named]
    return [(part, code) for part, code in found if code is not None]


def _shown(library: Library, record: Record, claim: Claimed) -> ShownClaim:
    held = claim.published
    return ShownClaim(
        claimed=claim,
        figure=Markup(library.figure(record, claim)) if held else Markup(""),
        command=command(record, claim),
        settings={name: _setting(value) for name, value in held.result.settings.items()} if held else {},
        machine=_machine(held),
        code=sources.excerpts_of_claim(claim),
    )


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value))
    return f"{value:,}" if type(value) is int else str(value)


def _machine(held: Published | None) -> dict[str, str]:
    if held is None:
        return {}
    known = {name: held.environment[name] for name in MACHINE if held.environment.get(name)}
    if "memory_gib" in known:
        known["memory_gib"] = size(round(known["memory_gib"] * 2**30))
    if "commit" in known:
        known["commit"] = str(known["commit"])[:12]
    return {_MACHINE_TITLES.get(name, name): str(value) for name, value in known.items()}
