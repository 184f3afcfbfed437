"""Where pages are and what surrounds them: the one place that turns the name of a page into an address.

The same functions write the pages of a folder of files and those that a program serves; they differ in their `View`.

    page            file                         address
    front           index.html                   /            (with a query: browse/FACET-VALUE.html, /?FACET=VALUE)
    papers KEY      papers/KEY.html              /papers/KEY
    mixers          mixers/index.html            /mixers      (tasks, learners, leaderboards, compare alike)
    mixers NAME     mixers/NAME.html             /mixers/NAME
    code ROOM/FILE  code/ROOM/FILE.html          /code/ROOM/FILE
    about           about.html                   /about
    static FILE     static/FILE                  /static/FILE
    file NAME       NAME                         /NAME        (feeds and tables, from the root)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from contexture.catalogue.library import Claimed, Record
from contexture.catalogue.query import FACETS, SORTS

Pairs = Sequence[tuple[str, str]]


class Links(Protocol):
    """From the name of a page to its address."""

    def __call__(self, page: str, name: str = "", *, query: Pairs = (), anchor: str = "") -> str:
        """The address of a page; `query` holds its parameters, `anchor` the id of a place on it."""
        ...


ROOMS_OF_PAGES = ("papers", "mixers", "tasks", "learners", "leaderboards", "compare", "code", "static")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileLinks:
    """Relative addresses of files, from a page that lies `depth` folders deep, or at `root` if that is known."""

    depth: int = 0
    root: str = ""

    def __call__(self, page: str, name: str = "", *, query: Pairs = (), anchor: str = "") -> str:
        """The relative address; a query that no file answers goes to the page itself, whose script reads it."""
        path, rest = file_of(page, name, query)
        return (self.root or "../" * self.depth) + quote(path) + rest + _anchor(anchor)


def file_of(page: str, name: str = "", query: Pairs = ()) -> tuple[str, str]:
    """The file of a page in a built site, and the query that is left for its script.

    >>> file_of("mixers", "mamba-2"), file_of("front", query=[("family", "mixers")])
    (('mixers/mamba-2.html', ''), ('browse/family-mixers.html', ''))
    """
    if page in ("static", "file"):
        return (name if page == "file" else f"static/{name}"), ""
    if page == "front" and len(query) == 1 and query[0][0] in FACETS:
        return f"browse/{query[0][0]}-{query[0][1]}.html", ""
    rest = "?" + urlencode(query) if query else ""
    if page in ROOMS_OF_PAGES:
        return f"{page}/{name or 'index'}.html", rest
    return ("index.html" if page == "front" else f"{page}.html"), rest


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedLinks:
    """Addresses of pages that a program serves."""

    def __call__(self, page: str, name: str = "", *, query: Pairs = (), anchor: str = "") -> str:
        """The address from the root, with its query."""
        folder = "" if page in ("front", "file") else page
        path = "/" + "/".join(quote(part) for part in (folder, name) if part)
        return path + ("?" + urlencode(query) if query else "") + _anchor(anchor)


def _anchor(anchor: str) -> str:
    return f"#{quote(anchor)}" if anchor else ""


def _nothing(record: Record, claim: Claimed) -> Markup:
    return Markup("")


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a page needs to know of where it is shown.

    live: a program answers queries, so forms are sent to it; otherwise the page's script answers what no file does.
    head: further elements of every page's head (scripts, a feed). action: what stands beside a claim, such as a button
    that runs it.
    """

    link: Links
    live: bool = False
    head: str | Markup = ""
    action: Callable[[Record, Claimed], Markup] = _nothing


@cache
def _environment() -> Environment:
    from contexture.catalogue.entry import FAMILIES
    from contexture.reports.claims import bound, interval
    from contexture.reports.numbers import count, number, seconds

    environment = Environment(
        loader=PackageLoader("contexture.catalogue"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bound": bound,
        "number": number,
        "seconds": seconds,
        "count": count,
        "interval": lambda side: interval(side.value, side.low, side.high),
    }
    environment.globals |= {"families": FAMILIES, "facet_names": FACETS, "sorts": SORTS}
    return environment


def render(template: str, view: View, **values: Any) -> str:
    """A page from its template; everything that is not markup already is escaped."""
    return _environment().get_template(template).render(view=view, link=view.link, **values)
