"""Finding papers: words through an index in memory, facets with their counts, orders.

A search is a list of words; each is the beginning of a word of the paper, wherever it stands. Text is reduced to plain
lower-case words before the index sees it, so that the search without an index (where SQLite lacks FTS5) finds the same
papers, and so that no character of a reader's has a meaning for the index.
"""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from contexture.catalogue.entry import FAMILIES
from contexture.catalogue.library import STATUSES, Library, Record, newest_first
from contexture.catalogue.query import FACETS, MOST_TEXT, RELEVANCE, Query, place, values

if TYPE_CHECKING:
    from sqlite3 import Connection

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"title": 8.0, "names": 6.0, "authors": 4.0, "sentence": 4.0, "claims": 3.0, "summary": 2.0, "refutation": 1.0}
)
"""What is searched, and how much a word found there counts."""

MOST_WORDS = 24
"""Words of a search that are looked for; the others are left out."""

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The plain words of a text: lower case, without accents, split wherever there is no letter or digit.

    >>> words("Naïve  RoPE-free (x_{t+1}) NEAR*")
    ['naive', 'rope', 'free', 'x', 't', '1', 'near']
    """
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)).casefold())


def texts(record: Record) -> dict[str, str]:
    """What is searched of a paper, by the names of WEIGHTS."""
    entry = record.entry
    names = (entry.key, *record.uses("mixers"), *record.uses("tasks"), *record.uses("learners"))
    return {
        "title": entry.title,
        "names": " ".join((*names, FAMILIES[entry.family])),
        "authors": " ".join(record.authors),
        "sentence": entry.sentence,
        "claims": " ".join(claim.sentence for claim in record.claims),
        "summary": entry.summary,
        "refutation": entry.refutation,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One value of a facet: how many papers would be listed with it, the other facets as they are."""

    value: str
    count: int
    chosen: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a query finds: papers in order, in groups with headings ("" for none), and the choices of every facet."""

    query: Query
    groups: tuple[tuple[str, tuple[Record, ...]], ...]
    facets: Mapping[str, tuple[Choice, ...]]
    total: int

    @property
    def records(self) -> tuple[Record, ...]:
        """All papers in order."""
        return tuple(record for _, records in self.groups for record in records)


_ORDERS: Mapping[str, tuple[Callable[[Record], str], Callable[[Record], int]]] = MappingProxyType(
    {
        "newest": (lambda r: str(r.entry.year or "Year not recorded"), lambda r: 0),
        "status": (lambda r: r.status.capitalize(), lambda r: STATUSES.index(r.status)),
        "family": (lambda r: FAMILIES[r.entry.family], lambda r: list(FAMILIES).index(r.entry.family)),
    }
)
"""Orders with headings: a paper's heading, and the heading's place."""


class Search:
    """An index over a library; safe to share between threads.

    indexed: False searches word by word, as where SQLite lacks FTS5.
    """

    def __init__(self, library: Library, *, indexed: bool = True) -> None:
        self.library = library
        self._lock = threading.Lock()
        self._plain = {
            key: {name: words(text) for name, text in texts(record).items()} for key, record in library.papers.items()
        }
        self._index = _build(self._plain) if indexed else None

    @property
    def indexed(self) -> bool:
        """Whether there is an index."""
        return self._index is not None

    def find(self, text: str) -> list[str]:
        """The keys of papers that have every word of a text, the best first; every key for a text without words."""
        wanted = list(dict.fromkeys(words(text[:MOST_TEXT])))[:MOST_WORDS]
        if not wanted:
            return list(self.library.papers)
        if self._index is None:
            return self._scan(wanted)
        asked = " ".join(f'"{word}"*' for word in wanted)
        rank = f"bm25(papers, 0, {', '.join(map(str, WEIGHTS.values()))})"
        with self._lock:
            rows = self._index.execute(f"SELECT key FROM papers WHERE papers MATCH ? ORDER BY {rank}, rowid", (asked,))
            return [key for (key,) in rows]

    def _scan(self, wanted: Sequence[str]) -> list[str]:
        found = []
        for order, (key, columns) in enumerate(self._plain.items()):
            hits = [
                {name for name, held in columns.items() if any(one.startswith(word) for one in held)} for word in wanted
            ]
            if all(hits):
                found.append((-sum(max(WEIGHTS[name] for name in where) for where in hits), order, key))
        return [key for _, _, key in sorted(found)]

    def select(self, query: Query) -> Listing:
        """The papers that a query asks for, and what each further choice would find."""
        papers = self.library.papers
        found = [papers[key] for key in self.find(query.text)]
        listed = [record for record in found if query.matches(record)]
        return Listing(
            query=query,
            groups=_grouped(listed, query.sort or (RELEVANCE if query.text else "newest")),
            facets={facet: _choices(found, query, facet) for facet in FACETS},
            total=len(listed),
        )


def _choices(found: Iterable[Record], query: Query, facet: str) -> tuple[Choice, ...]:
    counted = Counter(value for record in found if query.matches(record, but=facet) for value in values(record, facet))
    chosen = set(query.chosen.get(facet, ()))
    known = sorted(counted, key=lambda value: place(facet, value))
    absent = sorted(chosen - set(known))
    return tuple(Choice(value=value, count=counted[value], chosen=value in chosen) for value in (*known, *absent))


def _grouped(records: list[Record], sort: str) -> tuple[tuple[str, tuple[Record, ...]], ...]:
    if sort == RELEVANCE:
        return (("", tuple(records)),) if records else ()
    if sort == "title":
        return (("", tuple(sorted(records, key=lambda r: r.entry.title.casefold()))),) if records else ()
    heading, first = _ORDERS[sort]
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: (first(r), newest_first(r))):
        groups.setdefault(heading(record), []).append(record)
    return tuple((name, tuple(held)) for name, held in groups.items())


def _build(plain: Mapping[str, Mapping[str, list[str]]]) -> "Connection | None":
    """The index in memory, or None where this Python's SQLite has no FTS5."""
    try:
        import sqlite3
    except ImportError:
        return None
    columns = f"key UNINDEXED, {', '.join(WEIGHTS)}"
    try:
        index = sqlite3.connect(":memory:", check_same_thread=False)
        # The words are plain already: the tokenizer has only to split at spaces, and takes every other letter as it is.
        index.execute(f"CREATE VIRTUAL TABLE papers USING fts5({columns}, tokenize='ascii', prefix='2 3')")
    except sqlite3.OperationalError:
        return None
    marks = ", ".join("?" * (1 + len(WEIGHTS)))
    rows = [(key, *(" ".join(held[name]) for name in WEIGHTS)) for key, held in plain.items()]
    index.executemany(f"INSERT INTO papers VALUES ({marks})", rows)
    return index
