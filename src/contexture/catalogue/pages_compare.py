"""Recorded measurements side by side: of mixers, and of everything that was measured on one task."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from contexture.catalogue.library import Library
from contexture.catalogue.measures import Measure, by_quantity
from contexture.catalogue.parts import Room, commands
from contexture.catalogue.plots import cell, scale_of, ticks
from contexture.catalogue.view import View, render
from contexture.errors import InputError
from contexture.reports.numbers import listed

_BOARDS: tuple[Room, ...] = ("mixers", "learners")
MOST = 0.8
"""The share of all measured mixers that have to be measured at a length for it to stand side by side."""
_STATES = {"constant": "constant state", "grows": "growing state"}
_WHY_NOT = {
    "sees all": "Mixers that see a whole set at once, so that no sequence measures them",
    "": "Arrangements of several mixers over layers; the claims of their papers measure them",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A measured number in a table: its picture, its text, whether none of its column reads better."""

    plot: Markup
    text: str
    interval: str
    number: float
    best: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """A table of measures: a row for each name, None where a measure does not have it."""

    room: Room
    measures: tuple[Measure, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]

    @property
    def axis(self) -> tuple[tuple[float, str], ...]:
        """The ticks of the first measure's axis."""
        return ticks(self.measures[0], scale_of(self.measures[0], [name for name, _ in self.rows]))

    @property
    def origins(self) -> list[tuple[str, str]]:
        """The commands that measured it, each with its machine in words."""
        return list(dict.fromkeys((measure.command, _machine(measure)) for measure in self.measures))


def board(room: Room, measures: Sequence[Measure], names: Iterable[str], *, tall: bool = False) -> Board:
    """The named rows of some measures, best first by the first measure that has them."""
    wanted = list(dict.fromkeys(names))
    order = {name: (i, j) for i, m in reversed(list(enumerate(measures))) for j, name in enumerate(m.values)}
    rows = sorted((name for name in wanted if name in order), key=lambda name: order[name])
    scales = [scale_of(measure, rows) for measure in measures]
    cells: dict[str, list[Cell | None]] = {name: [] for name in rows}
    for measure, scale in zip(measures, scales, strict=True):
        best = next((measure.text(value.value) for name, value in measure.values.items() if name in cells), "")
        for name in rows:
            value = measure.values.get(name)
            cells[name].append(
                None
                if value is None
                else Cell(
                    plot=cell(measure, value, scale, tall=tall),
                    text=measure.text(value.value),
                    interval=""
                    if value.low is None or value.high is None
                    else f"{measure.text(value.low)} to {measure.text(value.high)}",
                    number=value.value,
                    best=measure.text(value.value) == best,
                )
            )
    return Board(room=room, measures=tuple(measures), rows=tuple((name, tuple(held)) for name, held in cells.items()))


def mixer_measures(library: Library) -> tuple[list[Measure], list[Measure]]:
    """What stands side by side: what was learnt, then costs at the longest length of MOST; and what else there is."""
    held = [m for m in library.measures if m.room == "mixers"]
    counted: dict[int, int] = {}
    for m in held:
        counted[m.length] = max(counted.get(m.length, 0), len(m.values))
    longest = max((n for n, count in counted.items() if count >= MOST * max(counted.values())), default=0)
    chosen = sorted((m for m in held if m.length in (0, longest)), key=lambda m: m.length)
    return chosen, [m for m in held if m not in chosen]


def compare(library: Library, names: Sequence[str], view: View) -> str:
    """Recorded measurements of several mixers side by side; of all that were measured where none is named."""
    measures, others = mixer_measures(library)
    known = dict.fromkeys(name for measure in measures for name in measure.values)
    for name in names:
        library.part("mixers", name)
    return render(
        "compare.html",
        view,
        library=library,
        board=board("mixers", measures, names or known),
        others=by_quantity(others),
        known=sorted(known),
        chosen=list(names),
        by_state=_by_state(library, known),
        unmeasured=_unmeasured(library, known),
    )


def _by_state(library: Library, names: Iterable[str]) -> dict[str, list[str]]:
    """The names of mixers by what their state does."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        part = library.parts["mixers"].get(name)
        if part is not None and part.facts.get("state") in _STATES:
            found.setdefault(_STATES[part.facts["state"]], []).append(name)
    return found


def _unmeasured(library: Library, known: Container[str]) -> dict[str, list[str]]:
    """The names of mixers of which nothing is recorded, by why that is."""
    found: dict[str, list[str]] = {}
    for name, part in library.parts["mixers"].items():
        if name not in known:
            found.setdefault(_WHY_NOT.get(part.facts.get("order", ""), "Not measured yet"), []).append(name)
    return found


def measure(library: Library, key: str, names: Sequence[str], view: View) -> str:
    """One measurement as a plot with its axis, of the named or of all; InputError for an unknown key."""
    found = next((m for m in library.measures if m.key == key), None)
    if found is None:
        raise InputError(f"no measurement is named {key[:80]!r}")
    table = board(found.room, [found], names or found.values, tall=True)
    return render("measure.html", view, library=library, measure=found, board=table, chosen=list(names))


def leaderboard(library: Library, task: str, view: View) -> str:
    """Everything recorded on a task, a table for mixers and one for learners; InputError for an unknown task."""
    part = library.part("tasks", task)
    held = [m for m in library.measures if m.task == task]
    boards = [
        board(room, found, (name for m in found for name in m.values), tall=len(found) == 1)
        for room in _BOARDS
        for found in [[m for m in held if m.room == room]]
        if found
    ]
    return render("leaderboard.html", view, library=library, part=part, boards=boards, commands=commands(part))


def leaderboards(library: Library, view: View) -> str:
    """All tasks: those on which something is recorded, with what leads them, and the others."""
    held: dict[str, list[tuple[Measure, str]]] = {}
    for one in library.measures:
        held.setdefault(one.task, []).append((one, leaders(one)))
    tasks = library.parts["tasks"].values()
    return render(
        "leaderboards.html",
        view,
        library=library,
        recorded=[(part, held[part.name]) for part in tasks if part.name in held],
        others=[part for part in tasks if part.name not in held],
    )


def leaders(measure: Measure) -> str:
    """The names that share the first place of a measure, three at most, with the number that they share."""
    first = [name for name in measure.values if measure.place(name) == 1]
    named = first if len(first) < 4 else [*first[:2], f"{len(first) - 2} more"]
    return f"{listed(named)}, {measure.text(measure.values[first[0]].value)}"


def _machine(measure: Measure) -> str:
    about = measure.environment
    threads = about.get("threads")
    said = (
        about.get("processor"),
        about.get("instructions"),
        threads and f"{threads} thread{'s' if threads != 1 else ''}",
        about.get("torch") and f"PyTorch {about['torch']}",
        about.get("commit") and f"commit {about['commit'][:12]}",
    )
    return ", ".join(str(one) for one in said if one)
