"""The catalogue's pages, served to this machine: an ASGI application.

    guard (who may ask what)  ─▶  answers kept  ─▶  routes  ─▶  pages, feeds, read API, runs

What is served is listed: a request's path chooses among names that the library holds, and is never made into a path of
a file. Pages are made once for each state of the results; when a file of theirs changes, all are made anew.
"""

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from contexture.catalogue.addresses import addresses, may_post
from contexture.catalogue.answers import TEXT, Answer, send_answer
from contexture.catalogue.edition import Edition, Make, Missing, asks_for_part
from contexture.catalogue.entry import FOLDER
from contexture.catalogue.guard import Guard
from contexture.catalogue.jobs import Busy, Jobs
from contexture.catalogue.library import Library, load_library
from contexture.catalogue.run_pages import RunPages
from contexture.errors import ContextureError, InputError
from contexture.store.report import Report, to_stderr

AT_ONCE = ("/", "/api/search")
"""Addresses whose answers take less to make than to hand to another thread and back."""
EVERY = 2.0
"""Seconds between two looks at whether results have changed."""


class Catalogue:
    """What is served now: an edition, and a new one when a file of the results has changed.

    load: reads the library. url: the server's own address, by which feeds name pages.
    """

    def __init__(
        self, load: Callable[[], Library], runs: RunPages, *, url: str = "", report: Report = to_stderr
    ) -> None:
        self.load, self.runs, self.url, self.report = load, runs, url, report
        library = load()
        self.edition = Edition(library, runs, url)
        self._seen, self._looked = stamp(library.results), time.monotonic()
        self._making = threading.Lock()
        self._loading = threading.Lock()

    def draw(self) -> None:
        """Draw every figure, one after the other, so that nobody waits for those of a whole page."""
        edition = self.edition
        for record in edition.library.papers.values():
            for claim in record.claims:
                if claim.published is not None:
                    with self._making:
                        edition.library.figure(record, claim)

    def look(self) -> None:
        """Begin to read the library anew if a file of the results has changed; what stands is served meanwhile."""
        now = time.monotonic()
        if now - self._looked < EVERY:
            return
        self._looked = now
        seen = stamp(self.edition.library.results)
        if seen != self._seen and self._loading.acquire(blocking=False):
            threading.Thread(target=self._load, args=(seen,), name="library", daemon=True).start()

    def _load(self, seen: object) -> None:
        try:
            self.edition = Edition(self.load(), self.runs, self.url)
            self.draw()
        except ContextureError as error:
            self.report(f"contexture: {error}; what was read before is served")
        finally:
            # A damaged file is reported once, not at every look.
            self._seen = seen
            self._loading.release()

    def answer(self, make: Make, request: Request) -> Answer:
        """Make an answer, one at a time: figures are drawn by a library that does not like company."""
        with self._making:
            return self.answer_at_once(make, request)

    def answer_at_once(self, make: Make, request: Request) -> Answer:
        """Make an answer that needs no figure drawn."""
        edition, asked = self.edition, self.asked(request.scope)
        try:
            answer = make(edition, request)
        except Missing:
            return edition.missing
        except InputError as error:
            return Answer(f"{error}\n".encode(), TEXT, status=400, keep=False)
        if answer.keep:
            edition.answers.keep(asked, answer)
        return answer

    def asked(self, scope: Scope) -> tuple[object, ...]:
        """What tells one answer from another: address, whether a part is asked, and the runs that a page shows."""
        path = scope["path"]
        revision = self.runs.jobs.revision if path.startswith("/papers/") else 0
        return path, scope["query_string"], asks_for_part(scope), revision


def stamp(results: Path | None) -> object:
    """What changes when a file of the results or an entry does."""
    found = []
    for folder in (FOLDER, *((results, results / "benchmarks") if results else ())):
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir()):
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_size))
    return tuple(found)


class Sent:
    """An answer as Starlette wants its responses: an ASGI application."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send_answer(self.answer, scope, send)


class _Kept:
    """Answers that are kept are sent before any route is looked for."""

    def __init__(self, app: Starlette, catalogue: Catalogue) -> None:
        self.app, self.catalogue = app, catalogue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "POST":
            self.catalogue.look()
            kept = self.catalogue.edition.answers.get(self.catalogue.asked(scope))
            if kept is not None:
                await send_answer(kept, scope, send)
                return
        await self.app(scope, receive, send)


def application(
    load: Callable[[], Library] = load_library,
    *,
    jobs: Jobs,
    port: int | None = None,
    report: Report = to_stderr,
) -> Guard:
    """The application. port: the one that it is served at, to which Host headers are held; None takes any.

    Raises InputError for a library that cannot be read.
    """
    guard = Guard(posts=may_post, port=port)
    url = f"http://127.0.0.1:{port}" if port else ""
    catalogue = Catalogue(load, RunPages(jobs, guard.token), url=url, report=report)

    def page(path: str, make: Make) -> Route:
        async def endpoint(request: Request) -> Any:
            if path in AT_ONCE:
                return Sent(catalogue.answer_at_once(make, request))
            return Sent(await run_in_threadpool(catalogue.answer, make, request))

        return Route(path, endpoint, methods=["GET", "HEAD"])

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        threading.Thread(target=catalogue.draw, name="figures", daemon=True).start()
        yield
        await run_in_threadpool(jobs.close)

    async def not_found(request: Request, error: Exception) -> Any:
        return Sent(catalogue.edition.missing)

    app = Starlette(
        routes=[*(page(path, make) for path, make in addresses().items()), *_posts(catalogue)],
        exception_handlers={404: not_found},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    guard.app = _Kept(app, catalogue)
    return guard


def _posts(catalogue: Catalogue) -> list[Route]:
    """What begins a run and what stops it."""

    async def begin(request: Request) -> Any:
        edition, form = catalogue.edition, request.scope["form"]
        record, claim = edition.library.papers.get(form.get("paper", "")), form.get("claim", "")
        if record is None or claim not in {one.name for one in record.claims if one.code is not None}:
            return Sent(edition.missing)
        try:
            job = await run_in_threadpool(edition.runs.jobs.start, record.key, claim)
        except Busy as busy:
            if asks_for_part(request.scope):
                return Sent(Answer(edition.runs.offer(record.key, claim, edition.view).encode(), keep=False))
            return Sent(Answer(f"{busy}\n".encode(), TEXT, status=409, keep=False))
        except ContextureError as error:
            return Sent(Answer(f"{error}\n".encode(), TEXT, status=503, keep=False))
        return Sent(_begun(edition, request, job.id))

    async def stop(request: Request) -> Any:
        edition, id = catalogue.edition, str(request.path_params["id"])
        await run_in_threadpool(edition.runs.jobs.stop, id)
        return Sent(edition.missing if edition.runs.jobs.get(id) is None else _begun(edition, request, id))

    return [Route("/runs", begin, methods=["POST"]), Route("/runs/{id}/stop", stop, methods=["POST"])]


def _begun(edition: Edition, request: Request, id: str) -> Answer:
    """The run itself for a page's script; for a form, the address of its page."""
    job = edition.runs.jobs.get(id)
    if job is not None and asks_for_part(request.scope):
        return Answer(edition.runs.part(job, edition.view).encode(), keep=False)
    return Answer(b"", TEXT, status=303, headers=((b"location", edition.view.link("runs", id).encode()),), keep=False)
