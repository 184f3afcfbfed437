"""Published results as news: what each says, when it was published, and whether it is what was said before."""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from contexture.catalogue.library import Claimed, Library, Published, Record
from contexture.claims.harness import Result
from contexture.reports.claims import bound, interval
from contexture.reports.numbers import number
from contexture.store import json_text
from contexture.store.clock import moment

_SAME_WHATEVER_THE_MACHINE = ("seconds", "models", "lines", "axes")
"""Fields of a result that may differ between two measurements which say the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """A published result. at: when it was published (RFC 3339); mark: what it says, as a hash."""

    record: Record
    claim: Claimed
    result: Result
    at: str
    mark: str

    @property
    def name(self) -> str:
        """The paper's key and the claim's name."""
        return f"{self.record.key}/{self.claim.name}"

    @property
    def urn(self) -> str:
        """A name for ever, whatever is measured."""
        return urn("results", self.record.key, self.claim.name)

    @property
    def measured(self) -> str:
        """The measured number with its interval and the threshold."""
        return f"{interval(self.result.value, self.result.low, self.result.high)}, claimed {bound(self.result)}"

    @property
    def control(self) -> str:
        """What must fail, with its number."""
        return f"{number(self.result.control.value)}: {self.result.control.sentence}"


def urn(*address: str) -> str:
    """A stable name for what has this address within the project, as RFC 4122 makes them of names.

    >>> urn("results", "icl-by-gd", "construction")
    'urn:uuid:4db8848e-a691-5bba-a268-07bddb8b5e8b'
    """
    return uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("contexture", *address))).urn


def news(library: Library, *, family: str | None = None) -> list[News]:
    """Every published result, of one family if it is given, the latest first."""
    found = [
        News(record=record, claim=claim, result=held.result, at=_at(library, record, held), mark=mark(held.result))
        for record in library.papers.values()
        if family in (None, record.entry.family)
        for claim in record.claims
        for held in [claim.published]
        if held is not None
    ]
    # Sorted twice, as the names go up while the moments go down.
    return sorted(sorted(found, key=lambda one: one.name), key=lambda one: one.at, reverse=True)


def latest(found: Iterable[News]) -> str:
    """The moment of the latest; the beginning of the project's era where there is none."""
    return max((one.at for one in found), default="2026-01-01T00:00:00Z")


def mark(result: Result) -> str:
    """A hash of what a result says: of everything but the time that it took and the lines of its figure."""
    said = {name: value for name, value in result.to_json().items() if name not in _SAME_WHATEVER_THE_MACHINE}
    return hashlib.sha256(json_text.dumps(said, what="a result").encode()).hexdigest()[:20]


def _at(library: Library, record: Record, held: Published) -> str:
    """When a result was published: as its file says or, where it does not, when the file was written."""
    try:
        return moment(datetime.fromisoformat(held.at))
    except ValueError:
        assert library.results is not None
        return moment(datetime.fromtimestamp((library.results / f"{record.key}.json").stat().st_mtime, UTC))
