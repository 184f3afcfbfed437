"""Every address that is served with GET, and what makes its answer.

/  /papers/KEY  /mixers[/NAME]  /tasks[/NAME]  /learners[/NAME]  /compare[/KEY]  /leaderboards[/TASK]  /code/FILE
/about  /papers.csv  /feed.xml  /feeds/FAMILY.xml  /api/...  /runs[/ID[/part | /figure.svg]]  /static/FILE
"""

import json
from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from typing import Any

from starlette.requests import Request

from contexture.catalogue import pages, pages_compare, read_api
from contexture.catalogue.answers import Answer
from contexture.catalogue.edition import Edition, Make, Missing, asks_for_part
from contexture.catalogue.export import to_csv
from contexture.catalogue.feed import feed, feed_names
from contexture.catalogue.job import Job
from contexture.catalogue.pages_paper import paper
from contexture.catalogue.parts import ROOMS, Room
from contexture.catalogue.query import Query
from contexture.catalogue.static_files import FOLDER as STATIC
from contexture.catalogue.static_files import TYPES, static_files
from contexture.errors import InputError

ATOM = "application/atom+xml; charset=utf-8"
CSV = "text/csv; charset=utf-8"
JSON = "application/json; charset=utf-8"
SVG = "image/svg+xml"
MOST_PARAMETERS = 64


def may_post(path: str) -> bool:
    """Whether something is begun or stopped at this address."""
    return path == "/runs" or (path.startswith("/runs/") and path.endswith("/stop") and path.count("/") == 3)


def addresses() -> dict[str, Make]:
    """What makes the answer of every address; a name that the library does not hold is `Missing`."""
    made: dict[str, Make] = {
        "/": _front,
        "/papers/{name}": _html(lambda e, r: paper(e.library, _name(r, e.library.papers), e.view)),
        "/compare": _html(lambda e, r: pages_compare.compare(e.library, _mixers(e, r), e.view)),
        "/compare/{name}": _html(
            lambda e, r: pages_compare.measure(e.library, _name(r, e.measures), _asked(r), e.view)
        ),
        "/leaderboards": _html(lambda e, r: pages_compare.leaderboards(e.library, e.view)),
        "/leaderboards/{name}": _html(
            lambda e, r: pages_compare.leaderboard(e.library, _name(r, e.library.parts["tasks"]), e.view)
        ),
        "/code/{name:path}": _html(lambda e, r: pages.code(e.library, _name(r, e.library.code), e.view)),
        "/about": _html(lambda e, r: pages.about(e.library, e.view)),
        "/static/{name:path}": _static,
        "/papers.csv": lambda e, r: Answer(to_csv(e.library.papers.values()).encode(), CSV),
        "/api/papers": _json(lambda e, r: read_api.papers(e.library.papers.values())),
        "/api/papers/{name}": _json(lambda e, r: read_api.paper(e.library, _name(r, e.library.papers))),
        "/api/mixers": _json(lambda e, r: read_api.mixers(e.library)),
        "/api/search": _json(lambda e, r: read_api.search(e.search, Query.parse(_pairs(r)))),
        "/api/schema.json": _json(lambda e, r: read_api.schema()),
        "/runs": lambda e, r: Answer(e.runs.listed(e.view).encode(), keep=False),
        "/runs/{name}": lambda e, r: Answer(e.runs.page(_job(e, r), e.library, e.view).encode(), keep=False),
        "/runs/{name}/part": lambda e, r: Answer(e.runs.part(_job(e, r), e.view).encode(), keep=False),
        "/runs/{name}/figure.svg": _figure,
    }
    for room in ROOMS:
        made[f"/{room}"] = partial(_room, room)
        made[f"/{room}/{{name}}"] = partial(_part, room)
    for name, family in feed_names().items():
        made[f"/{name}"] = partial(_feed, family)
    return made


def _html(make: Callable[[Edition, Request], str]) -> Make:
    return lambda edition, request: Answer(make(edition, request).encode())


def _json(make: Callable[[Edition, Request], Mapping[str, Any]]) -> Make:
    def answer(edition: Edition, request: Request) -> Answer:
        try:
            return _as_json(make(edition, request))
        except Missing:
            return _as_json({"error": "nothing has this name"}, status=404)
        except InputError as error:
            return _as_json({"error": str(error)}, status=400)

    return answer


def _as_json(value: Mapping[str, Any], *, status: int = 200) -> Answer:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
    return Answer(text.encode(errors="replace"), JSON, status=status, keep=status == 200)


def _name(request: Request, known: Collection[str]) -> str:
    """The name in the address, if it is one of those that are known."""
    name = str(request.path_params["name"])
    if name not in known:
        raise Missing
    return name


def _pairs(request: Request) -> list[tuple[str, str]]:
    pairs = request.query_params.multi_items()
    if len(pairs) > MOST_PARAMETERS:
        raise InputError(f"an address has at most {MOST_PARAMETERS} parameters")
    return pairs


def _asked(request: Request) -> list[str]:
    """The names that a page of measurements is asked to show."""
    text = ",".join(value for name, value in _pairs(request) if name == "mixers")
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))[:MOST_PARAMETERS]


def _mixers(edition: Edition, request: Request) -> list[str]:
    return [name for name in _asked(request) if name in edition.library.parts["mixers"]]


def _front(edition: Edition, request: Request) -> Answer:
    query = Query.parse(_pairs(request))
    if not asks_for_part(request.scope):
        return Answer(pages.front(edition.search, query, edition.view).encode(errors="replace"))
    # The address that the page's script is to show, without the parameters that a form sends empty.
    address = ((b"hx-replace-url", edition.view.link("front", query=query.pairs()).encode()),)
    return Answer(pages.results(edition.search, query, edition.view).encode(errors="replace"), headers=address)


def _room(room: Room, edition: Edition, request: Request) -> Answer:
    return Answer(pages.parts(edition.library, room, edition.view).encode())


def _part(room: Room, edition: Edition, request: Request) -> Answer:
    return Answer(pages.part(edition.library, room, _name(request, edition.library.parts[room]), edition.view).encode())


def _feed(family: str | None, edition: Edition, request: Request) -> Answer:
    return Answer(feed(edition.library, edition.url, family, link=edition.view.link), ATOM)


def _job(edition: Edition, request: Request) -> Job:
    job = edition.runs.jobs.get(str(request.path_params["name"]))
    if job is None:
        raise Missing
    return job


def _figure(edition: Edition, request: Request) -> Answer:
    job = _job(edition, request)
    if not job.figure:
        raise Missing
    return Answer(job.figure.encode(), SVG, keep=False)


def _static(edition: Edition, request: Request) -> Answer:
    name = _name(request, served_files())
    kind = TYPES[name[name.rindex(".") :]]
    return Answer(served_files()[name], kind if kind == SVG else f"{kind}; charset=utf-8")


@cache
def served_files() -> Mapping[str, bytes]:
    """The files that pages load, by name: those of a built site, and what only served pages need."""
    more = ("vendor/htmx.min.js", "served/runs.css")
    return {**static_files(), **{name: (STATIC / name).read_bytes() for name in more}}
