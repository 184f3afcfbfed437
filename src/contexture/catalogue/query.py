"""What a reader asks of the list of papers, as it stands in an address: words, facets, an order.

    ?q=linear+attention&family=mixers&status=measured&sort=title

Values of one facet are alternatives; facets narrow each other. The address of a query is always written in one way.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlencode

from contexture.catalogue.entry import FAMILIES
from contexture.catalogue.library import STATUSES, VERDICTS, Record
from contexture.errors import InputError

UNKNOWN = "unknown"
"""The value of the facet `year` for papers whose year is not recorded."""

FACETS = ("family", "status", "verdict", "mechanism", "task", "year")
SORTS = {
    "newest": "newest first",
    "title": "by title",
    "status": "measured first",
    "family": "by family",
}
TEXT, SORT = "q", "sort"
RELEVANCE = "relevance"
"""The order of what was searched for, where no other is asked."""

MOST_TEXT = 400
"""Characters of a search that are looked at."""


def values(record: Record, facet: str) -> tuple[str, ...]:
    """The values that a paper has of a facet."""
    entry = record.entry
    match facet:
        case "family":
            return (entry.family,)
        case "status":
            return (record.status,)
        case "verdict":
            return tuple(record.verdicts)
        case "mechanism":
            return record.uses("mixers")
        case "task":
            return record.uses("tasks")
        case "year":
            return (str(entry.year) if entry.year else UNKNOWN,)
    raise InputError(f"there is no facet {facet!r}: there are {', '.join(FACETS)}")


def place(facet: str, value: str) -> tuple[int | str, ...]:
    """Where a value stands among those of its facet."""
    match facet:
        case "family":
            return (list(FAMILIES).index(value),)
        case "status":
            return (STATUSES.index(value),)
        case "verdict":
            return (VERDICTS.index(value),)
        case "year":
            return (1,) if value == UNKNOWN else (0, -int(value))
    return (value,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Words, chosen values by facet, an order; `sort` is "" for the usual one."""

    text: str = ""
    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    sort: str = ""

    @classmethod
    def parse(cls, pairs: Iterable[tuple[str, str]]) -> "Query":
        """The query of an address; InputError for a parameter or an order that does not exist.

        Empty values are as if they were not there, since forms send them. A value that no paper has is no fault: it
        finds nothing.
        """
        text, sort = "", ""
        chosen: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in (*FACETS, TEXT, SORT):
                raise InputError(f"there is no parameter {name[:40]!r}: there are {', '.join((TEXT, *FACETS, SORT))}")
            if name == TEXT:
                text = " ".join(value[:MOST_TEXT].split())
            elif name == SORT:
                if value and value not in (*SORTS, RELEVANCE):
                    raise InputError(f"there is no order {value[:40]!r}: there are {', '.join(SORTS)}")
                sort = value
            elif value and value not in chosen.setdefault(name, []):
                chosen[name].append(value)
        return cls(
            text=text, sort=sort, chosen={name: tuple(sorted(chosen[name])) for name in FACETS if name in chosen}
        )

    def pairs(self) -> list[tuple[str, str]]:
        """The parameters of its address."""
        facets = [(name, value) for name in FACETS for value in self.chosen.get(name, ())]
        return [pair for pair in ((TEXT, self.text), *facets, (SORT, self.sort)) if pair[1]]

    def address(self) -> str:
        """Its address's last part, with the question mark; "" for the whole list.

        >>> Query.parse([("family", "mixers"), ("q", "long  recall")]).address()
        '?q=long+recall&family=mixers'
        """
        return "?" + urlencode(self.pairs()) if self.pairs() else ""

    def toggled(self, facet: str, value: str) -> "Query":
        """The query with a value chosen that was not, or no longer chosen."""
        now = set(self.chosen.get(facet, ())) ^ {value}
        chosen = {**self.chosen, facet: tuple(sorted(now))}
        return Query(text=self.text, sort=self.sort, chosen={name: held for name, held in chosen.items() if held})

    def matches(self, record: Record, *, but: str = "") -> bool:
        """Whether a paper has one of the chosen values of every facet, `but` one of them left out."""
        return all(
            facet == but or not set(held).isdisjoint(values(record, facet)) for facet, held in self.chosen.items()
        )
