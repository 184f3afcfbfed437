"""Recorded measurements side by side: of mixers, and of everything that was measured on one task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from contexture.catalogue.library import Library
from contexture.catalogue.measures import Measure
from contexture.catalogue.parts import Room
from contexture.catalogue.plots import cell, scale_of, ticks
from contexture.catalogue.view import View, render
from contexture.errors import InputError

_BOARDS: tuple[Room, ...] = ("mixers", "learners")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A measured number in a table: its picture, its text, whether it is the best of its column."""

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
        best = next((name for name in measure.values if name in cells), "")
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
                    best=name == best,
                )
            )
    return Board(room=room, measures=tuple(measures), rows=tuple((name, tuple(held)) for name, held in cells.items()))


def mixer_measures(library: Library) -> tuple[list[Measure], list[Measure]]:
    """What stands side by side: what was learnt, then the cost at the longest length; and what else was recorded."""
    held = [m for m in library.measures if m.room == "mixers"]
    longest = max((m.length for m in held), default=0)
    chosen = sorted((m for m in held if m.length in (0, longest)), key=lambda m: m.length)
    return chosen, [m for m in held if m not in chosen]


def compare(library: Library, names: Sequence[str], view: View) -> str:
    """Recorded measurements of several mixers side by side; of all that were measured where none is named."""
    measures, others = mixer_measures(library)
    known = dict.fromkeys(name for measure in measures for name in measure.values)
    for name in names:
        library.part("mixers", name)
    unmeasured = [name for name in library.parts["mixers"] if name not in known]
    return render(
        "compare.html",
        view,
        library=library,
        board=board("mixers", measures, names or known),
        others=others,
        known=sorted(known),
        chosen=list(names),
        unmeasured=unmeasured,
    )


def measure(library: Library, key: str, names: Sequence[str], view: View) -> str:
    """One measurement as a plot with its axis, of the named or of all; InputError for an unknown key."""
    found = next((m for m in library.measures if m.key == key), None)
    if found is None:
        raise InputError(f"no measurement is named {key[:80]!r}")
    table = board(found.room, [found], names or found.values, tall=True)
    shown = [name for name, _ in table.rows]
    return render(
        "measure.html",
        view,
        library=library,
        measure=found,
        board=table,
        chosen=list(names),
        ticks=ticks(found, scale_of(found, shown)),
    )


def leaderboard(library: Library, task: str, view: View) -> str:
    """Everything recorded on a task, a table for mixers and one for learners; InputError for an unknown task."""
    part = library.part("tasks", task)
    held = [m for m in library.measures if m.task == task]
    boards = [
        board(room, found, (name for m in found for name in m.values))
        for room in _BOARDS
        for found in [[m for m in held if m.room == room]]
        if found
    ]
    return render("leaderboard.html", view, library=library, part=part, boards=boards)


def leaderboards(library: Library, view: View) -> str:
    """All tasks, those on which something is recorded first."""
    held: dict[str, list[Measure]] = {}
    for one in library.measures:
        held.setdefault(one.task, []).append(one)
    tasks = sorted(library.parts["tasks"].values(), key=lambda part: (part.name not in held, part.name))
    return render("leaderboards.html", view, library=library, tasks=tasks, held=held)


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
