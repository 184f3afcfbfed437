"""The collection: every entry joined with its paper's file, its published results and the parts that it names.

    load_library(results) ─▶ Library
      .papers     {key: Record}, newest first, those of unknown year last
      .parts      {"mixers" | "tasks" | "learners": {name: Part}}
      .measures   what was recorded of several mixers or learners side by side (`catalogue.measures`)
      .code       {"mixers/delta_rule": Path}: files of the package that have a page
      .record(key), .part(room, name)      one of them, or InputError with what is close
      .named(room, name)                   the records that name a part
      .figure(record, claim)               the claim's picture as an <svg> element, drawn once
    Record
      .entry      Entry: title, year, family, sentence, summary, refutation, mixers, tasks, learners, related
      .status     "measured" (a published result exists), "built" (a paper's file or one of its mixers does), "planned"
      .claims     tuple[Claimed]: .name, .sentence, .code (the Claim, or None), .published (or None)
      .verdicts   how many published claims have which verdict
      .paper      the Paper of contexture.papers, or None; .file, its file
      .authors, .arxiv, .left_out, .seconds
    Claimed.published
      .result     Result: value, low, high, threshold, direction, verdict, reference, control, settings, lines, ...
      .command, .environment, .at          what measured it, where and when
    to_json(record), to_csv(records), bibtex(record)     in `catalogue.export`

Everything is read once and never changes: load anew to see what was published since. Published results are
results/KEY.json of a checkout or of any folder; without one, no paper is measured.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

import contexture
from contexture.catalogue.entry import FOLDER, OTHERS, Entry, load_entries
from contexture.catalogue.parts import ROOMS, Part, Room, parts
from contexture.catalogue.plain_svg import without_styles
from contexture.claims.harness import Result, total_seconds
from contexture.claims.protocol import Claim, Paper, Verdict
from contexture.discovery import papers
from contexture.errors import InputError
from contexture.store.results import read_result

if TYPE_CHECKING:
    from contexture.catalogue.measures import Measure

Status = Literal["measured", "built", "planned"]
STATUSES: tuple[Status, ...] = ("measured", "built", "planned")
VERDICTS: tuple[Verdict, ...] = ("held", "mechanism-checked", "undecided", "not-held")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A claim's published result, with the command and the surroundings that it was measured in.

    at: when it was published, as RFC 3339 writes it; "" where that was not recorded.
    """

    result: Result
    command: str
    environment: Mapping[str, Any]
    at: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A claim of a paper: its code, if the workbench holds it, and its published result, if there is one."""

    name: str
    sentence: str
    code: Claim | None
    published: Published | None

    @property
    def verdict(self) -> Verdict | None:
        """The published verdict."""
        return self.published.result.verdict if self.published else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A paper of the collection with all that is known of it here."""

    entry: Entry
    status: Status
    claims: tuple[Claimed, ...]
    paper: Paper | None
    left_out: Mapping[str, str]

    @property
    def key(self) -> str:
        """The paper's key."""
        return self.entry.key

    @property
    def authors(self) -> tuple[str, ...]:
        """All authors in order, the last "others" where the list is not whole; empty where unknown."""
        known = self.entry.authors
        if self.paper is not None and (not known or known[-1] == OTHERS):
            return tuple(name.strip() for name in self.paper.authors.split(","))
        return known

    @property
    def arxiv(self) -> str:
        """The number at arXiv, "" where not known."""
        return self.entry.arxiv or (self.paper.arxiv if self.paper else "")

    @property
    def verdicts(self) -> Mapping[Verdict, int]:
        """How many published claims have each verdict, in the order of VERDICTS."""
        counted = Counter(claim.verdict for claim in self.claims)
        return {verdict: counted[verdict] for verdict in VERDICTS if counted[verdict]}

    @property
    def seconds(self) -> float:
        """Processor seconds behind the published claims, models that they share counted once."""
        return total_seconds(claim.published.result for claim in self.claims if claim.published)

    @property
    def file(self) -> Path | None:
        """The file in which the paper's claims are code."""
        return Path(self.paper.claims[0].measure.__code__.co_filename) if self.paper else None

    def uses(self, room: Room) -> tuple[str, ...]:
        """The names of mixers, tasks or learners that its entry or its file names, those of the entry first."""
        own: tuple[str, ...] = getattr(self.entry, room)
        more = self.paper.uses if self.paper else ()
        return own + tuple(name for name in more if name not in own and room in self._rooms(name))

    def _rooms(self, name: str) -> list[Room]:
        """Where a name of its file is meant: in the rooms where the entry has it, else in the first that holds it."""
        held = [room for room in ROOMS if name in parts()[room]]
        return [room for room in held if name in getattr(self.entry, room)] or held[:1]


@dataclass(frozen=True, kw_only=True)
class Library:
    """The collection. `results` is the folder that published results come from, None if there is none."""

    papers: Mapping[str, Record]
    parts: Mapping[Room, Mapping[str, Part]]
    results: Path | None

    def record(self, key: str) -> Record:
        """The paper of a key; InputError names what is close."""
        if key not in self.papers:
            raise InputError(f"no paper has the key {key!r}: {_close(key, self.papers)}")
        return self.papers[key]

    def part(self, room: Room, name: str) -> Part:
        """A mixer, task or learner by name; InputError names what is close."""
        if name not in self.parts[room]:
            raise InputError(f"no {room.removesuffix('s')} is named {name!r}: {_close(name, self.parts[room])}")
        return self.parts[room][name]

    @cached_property
    def _by_part(self) -> Mapping[tuple[Room, str], tuple[Record, ...]]:
        found: dict[tuple[Room, str], list[Record]] = {}
        for record in self.papers.values():
            for room in ROOMS:
                for name in record.uses(room):
                    found.setdefault((room, name), []).append(record)
        return {where: tuple(records) for where, records in found.items()}

    def named(self, room: Room, name: str) -> tuple[Record, ...]:
        """The papers that name a part, newest first."""
        return self._by_part.get((room, name), ())

    @cached_property
    def measures(self) -> tuple["Measure", ...]:
        """What was recorded of several mixers or learners side by side."""
        from contexture.catalogue.measures import read_measures

        return read_measures(self.results) if self.results else ()

    @cached_property
    def code(self) -> Mapping[str, Path]:
        """The files of the package that have a page, by their name there."""
        from contexture.catalogue.code import code_pages

        return code_pages(self)

    @cached_property
    def rows(self) -> dict[Hashable, Markup]:
        """Pieces of pages that never change, kept by the functions that made them."""
        return {}

    @cached_property
    def num_verdicts(self) -> int:
        """How many claims are published."""
        return sum(sum(record.verdicts.values()) for record in self.papers.values())

    @cached_property
    def _figures(self) -> dict[tuple[str, str], str]:
        return {}

    def figure(self, record: Record, claim: Claimed) -> str:
        """The picture of a published claim as an <svg> element; InputError where nothing is published."""
        if claim.published is None:
            raise InputError(f"{record.key} has no published result of {claim.name!r}, so there is no figure of it")
        where = (record.key, claim.name)
        if where not in self._figures:
            from contexture.reports.claim_figures import element

            drawn = element(claim.published.result, name=f"figure-{claim.name}", titled=False)
            self._figures[where] = without_styles(drawn)
        return self._figures[where]

    def faults(self) -> list[str]:
        """Names in entries that mean nothing here, and disagreements with the papers' files, a sentence each."""
        return [fault for record in self.papers.values() for fault in _faults(record, self)]


def load_library(results: str | Path | None = None, *, entries: Path = FOLDER) -> Library:
    """Read everything; InputError for a folder of results that is none, and for a damaged entry or result."""
    folder = results_folder(results)
    known = papers()
    records = [_record(entry, known.get(key), folder) for key, entry in load_entries(entries).items()]
    records.sort(key=newest_first)
    return Library(papers={record.key: record for record in records}, parts=parts(), results=folder)


def results_folder(given: str | Path | None) -> Path | None:
    """Where published results are: the folder given, ./results, or that of the checkout which the program runs from."""
    if given is not None:
        if not Path(given).is_dir():
            raise InputError(f"the folder of results {given} does not exist")
        return Path(given)
    checkout = Path(contexture.__file__).parents[2]
    if Path("results").is_dir():
        return Path("results")
    return checkout / "results" if (checkout / "pyproject.toml").is_file() and (checkout / "results").is_dir() else None


def newest_first(record: Record) -> tuple[int, int, str]:
    """The order of the front page: by year, in a year what is measured first, then by title; unknown years last."""
    return -(record.entry.year or 0), STATUSES.index(record.status), record.entry.title.casefold()


def _record(entry: Entry, paper: Paper | None, folder: Path | None) -> Record:
    document = _document(entry.key, folder)
    published = {claim["name"]: _published(claim, entry.key) for claim in document.get("claims", ())}
    code = {claim.name: claim for claim in paper.claims} if paper else {}
    claims = tuple(
        Claimed(name=name, sentence=_sentence(code.get(name), published.get(name)), code=code.get(name), published=held)
        for name in dict.fromkeys([*code, *published])
        for held in [published.get(name)]
    )
    built = paper is not None or any(name in parts()["mixers"] for name in entry.mixers)
    return Record(
        entry=entry,
        status="measured" if published else "built" if built else "planned",
        claims=claims,
        paper=paper,
        left_out=dict(paper.left_out if paper else document.get("left_out", {})),
    )


def _sentence(code: Claim | None, published: Published | None) -> str:
    if published is not None:
        return published.result.sentence
    assert code is not None
    return code.sentence


def _document(key: str, folder: Path | None) -> dict[str, Any]:
    """What is published of a paper, {} if nothing; a file of the same name that is of no paper is not looked at."""
    path = folder / f"{key}.json" if folder else None
    if path is None or not path.is_file():
        return {}
    document = read_result(path)
    return document if document.get("paper") == key else {}


def _published(claim: Mapping[str, Any], key: str) -> Published:
    about = dict(claim)
    measured = about.pop("measured_by", {})
    try:
        result = Result.from_json(about)
    except (TypeError, KeyError) as error:
        raise InputError(f"the published result {key}.json does not hold a claim that can be read: {error}") from error
    return Published(
        result=result,
        command=measured.get("command", ""),
        environment=measured.get("environment", {}),
        at=measured.get("at", ""),
    )


def _faults(record: Record, library: Library) -> Iterable[str]:
    entry, paper = record.entry, record.paper
    for room in ROOMS:
        for name in getattr(entry, room):
            if name not in library.parts[room]:
                yield f"{entry.key}: {room} names {name!r}, which does not exist ({_close(name, library.parts[room])})"
    for key in entry.related:
        if key not in library.papers:
            yield f"{entry.key}: related names {key!r}, which has no entry ({_close(key, library.papers)})"
    if paper is not None:
        for what, ours, theirs in (
            ("title", entry.title, paper.title),
            ("year", entry.year, paper.year),
            ("arxiv", entry.arxiv or paper.arxiv, paper.arxiv),
            ("authors", ", ".join(entry.authors) or paper.authors, paper.authors),
        ):
            if ours != theirs:
                yield f"{entry.key}: {what} is {ours!r}, but the paper's file has {theirs!r}"


def _close(name: str, known: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {', '.join(close)}?" if close else "nothing is named like it"
