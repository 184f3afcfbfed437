"""The pages of the catalogue as pure functions from the library (and what a reader asks of it) to HTML.

    front(search, query, view)             the papers, with facets; `results` is the part that changes with the query
    paper(library, key, view)              in pages_paper
    part(library, room, name, view)        a mixer, task or learner; `parts(library, room, view)` lists them
    compare(library, names, view), measure(library, key, names, view), leaderboard(library, task, view),
    leaderboards(library, view)            in pages_compare
    code(library, name, view), about(library, view), missing(view)

Unknown names raise InputError.
"""

from collections import Counter
from functools import partial

from markupsafe import Markup

from contexture.catalogue import code as sources
from contexture.catalogue.entry import FAMILIES
from contexture.catalogue.library import STATUSES, Library, Record
from contexture.catalogue.measures import by_quantity
from contexture.catalogue.parts import Part, Room, commands
from contexture.catalogue.plots import parts_of_whole, thumbnail
from contexture.catalogue.query import Query
from contexture.catalogue.search import Search
from contexture.catalogue.view import View, render

FACET_TITLES = {
    "family": "Family",
    "status": "Status",
    "verdict": "Verdict",
    "mechanism": "Mechanism",
    "task": "Task",
    "year": "Year",
}
VERDICT_TITLES = {
    "held": "held",
    "mechanism-checked": "mechanism checked",
    "undecided": "undecided",
    "not-held": "not held",
}
ROOM_TITLES: dict[Room, str] = {"mixers": "Mixers", "tasks": "Tasks", "learners": "Learners"}

FIRST_CHOICES = 12
"""Values of a facet that are shown before the rest is asked for."""


def value_title(facet: str, value: str) -> str:
    """What a value of a facet is called on a page."""
    if facet == "family":
        return FAMILIES.get(value, value)
    if facet == "verdict":
        return VERDICT_TITLES.get(value, value)
    return "not recorded" if (facet, value) == ("year", "unknown") else value


def row(library: Library, record: Record, view: View) -> Markup:
    """A paper's place in a list; made once for a library and a way of linking."""
    made = library.rows
    where = (record.key, view.link)
    if where not in made:
        made[where] = Markup(
            render("_row.html", view, record=record, drawn=picture(record), verdict_titles=VERDICT_TITLES)
        )
    return made[where]


def picture(record: Record) -> str:
    """The small figure of a paper: of the first claim with lines, otherwise of the first; "" where none is measured."""
    measured = [claim.published.result for claim in record.claims if claim.published]
    chosen = next((result for result in measured if result.lines), measured[0] if measured else None)
    return thumbnail(chosen) if chosen is not None else ""


def front(search: Search, query: Query, view: View) -> str:
    """The list of papers that a query asks for."""
    return render("front.html", view, **_found(search, query, view))


def results(search: Search, query: Query, view: View) -> str:
    """The part of the front page that changes with the query, as an element with the id `results`."""
    return render("_results.html", view, **_found(search, query, view))


def _found(search: Search, query: Query, view: View) -> dict[str, object]:
    library = search.library
    counted = Counter(record.status for record in library.papers.values())
    statuses = [(status, counted[status]) for status in STATUSES]
    return {
        "library": library,
        "listing": search.select(query),
        "query": query,
        "statuses": statuses,
        "bar": parts_of_whole(statuses),
        "whole": not query.pairs(),
        "num_verdicts": library.num_verdicts,
        "facet_titles": FACET_TITLES,
        "value_title": value_title,
        "row": partial(row, library, view=view),
        "first_choices": FIRST_CHOICES,
    }


def parts(library: Library, room: Room, view: View) -> str:
    """The list of all mixers, tasks or learners."""
    found = list(library.parts[room].values())
    if room == "mixers":
        found.sort(key=lambda part: (-(part.year or 0), part.name))
    return render("parts.html", view, library=library, room=room, title=ROOM_TITLES[room], parts=found)


def part(library: Library, room: Room, name: str, view: View) -> str:
    """A mixer, task or learner: its card, its papers, what was measured, its code."""
    found = library.part(room, name)
    measured = [m for m in library.measures if m.room == room and name in m.values]
    return render(
        "part.html",
        view,
        library=library,
        room=room,
        room_title=ROOM_TITLES[room],
        part=found,
        papers=library.named(room, name),
        measured=[m for m in measured if not m.quantity],
        costs=by_quantity(measured),
        boards=[m for m in library.measures if room == "tasks" and m.task == name],
        excerpt=_excerpt(found),
        row=partial(row, library, view=view),
        commands=commands(found),
    )


def _excerpt(found: Part) -> sources.Excerpt | None:
    return sources.excerpt(found.thing) if found.thing is not None else None


def code(library: Library, name: str, view: View) -> str:
    """A file of the package, line by line."""
    return render("code.html", view, name=name, lines=sources.whole(library, name))


def about(library: Library, view: View) -> str:
    """How to read the catalogue."""
    return render("about.html", view, library=library, verdict_titles=VERDICT_TITLES)


def missing(view: View) -> str:
    """What is shown where there is no page."""
    return render("missing.html", view)
