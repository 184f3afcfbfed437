"""The library as it was read at one moment, with what is made of it for those who ask."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from markupsafe import Markup
from starlette.requests import Request

from contexture.catalogue import pages
from contexture.catalogue.answers import Answer, Answers
from contexture.catalogue.feed import announced, feed_name
from contexture.catalogue.guard import Scope
from contexture.catalogue.library import Library
from contexture.catalogue.run_pages import RunPages
from contexture.catalogue.search import Search
from contexture.catalogue.view import ServedLinks, View

HEAD = Markup(
    '<meta name="htmx-config" content=\'{"allowEval":false,"allowScriptTags":false,"historyCacheSize":0,'
    '"includeIndicatorStyles":false,"refreshOnHistoryMiss":true,"selfRequestsOnly":true}\'>\n'
    '<link rel="stylesheet" href="/static/served/runs.css">\n'
    '<script src="/static/vendor/htmx.min.js" defer></script>\n'
) + announced(f"/{feed_name()}")


class Missing(Exception):
    """There is no such page."""


@dataclass(frozen=True)
class Edition:
    """The library as it was read at one moment, with its index and the answers made of it."""

    library: Library
    runs: RunPages
    url: str = ""
    answers: Answers = field(default_factory=Answers)

    @cached_property
    def search(self) -> Search:
        """The index of the papers."""
        return Search(self.library)

    @cached_property
    def view(self) -> View:
        """How pages look where they are served: with the button that runs a claim."""
        bare = View(link=ServedLinks(), live=True, head=HEAD)
        return View(
            link=bare.link, live=True, head=HEAD, action=lambda record, claim: self.runs.action(record, claim, bare)
        )

    @cached_property
    def measures(self) -> frozenset[str]:
        """The keys of recorded measurements."""
        return frozenset(measure.key for measure in self.library.measures)

    @cached_property
    def missing(self) -> Answer:
        """What is answered where there is no page."""
        return Answer(pages.missing(self.view).encode(), status=404, keep=False)


Make = Callable[[Edition, Request], Answer]


def asks_for_part(scope: Scope) -> bool:
    """Whether a page's script asks for the part of it that changes."""
    headers = dict(scope["headers"])
    return headers.get(b"hx-request") == b"true" and headers.get(b"hx-history-restore-request") != b"true"
