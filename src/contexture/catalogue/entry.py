"""What the catalogue says of one paper: a TOML file, `entries/KEY.toml`, read and held to its form.

    title = "..."          exactly the paper's
    authors = ["..."]      in order; the last is "others" where the list is not whole; left out where unknown
    year = 2024            left out where not recorded
    arxiv = "2405.13956"   left out where not known for sure
    family = "mixers"      one of FAMILIES
    sentence = "..."       the main result, for lists
    summary = "..."        one paragraph: the mechanism and the result
    refutation = "..."     the observation that would refute the main claim
    mixers, tasks, learners = ["..."]   registered names
    related = ["..."]      keys of other entries

A fault is one InputError that names the file and the field. Whether the names exist is the library's to know.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contexture.errors import InputError

FOLDER = Path(__file__).parent / "entries"

FAMILIES = {
    "in-context-learning": "In-context learning",
    "mixers": "Token mixers",
    "long-context": "Long context",
    "blocks": "Blocks and depth",
    "transforms": "Transforming trained models",
    "probes": "Probes",
    "decisions": "Decisions and control",
    "series": "Time series",
    "operators": "Operators and equations",
    "language": "Language",
    "vision": "Vision",
    "generation": "Generation",
    "audio": "Audio",
    "surveys": "Surveys",
}
"""Families by the name that an entry gives, in the order in which they are listed."""

OTHERS = "others"
"""The last of `authors` where the list is not whole."""

MOST_SENTENCE_WORDS = 25
SUMMARY_WORDS = (45, 120)
RELATED = (2, 4)

_KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}")
_REQUIRED = ("title", "family", "sentence", "summary", "refutation", "mixers", "tasks", "learners", "related")
_OPTIONAL = ("authors", "year", "arxiv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A paper in our own words. year is None and arxiv is "" where not recorded; authors may be empty."""

    key: str
    title: str
    authors: tuple[str, ...]
    year: int | None
    arxiv: str
    family: str
    sentence: str
    summary: str
    refutation: str
    mixers: tuple[str, ...]
    tasks: tuple[str, ...]
    learners: tuple[str, ...]
    related: tuple[str, ...]


def load_entries(folder: Path = FOLDER) -> dict[str, Entry]:
    """Every entry of a folder by its key, sorted; InputError for a folder that is none, and for the first fault."""
    if not folder.is_dir():
        raise InputError(f"the folder of entries {folder} does not exist")
    return {path.stem: load_entry(path) for path in sorted(folder.glob("*.toml"))}


def load_entry(path: Path) -> Entry:
    """Read one entry; InputError names the file and the field of a fault, and says what belongs there."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the entry {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"the entry {path} is not TOML in UTF-8: {error}") from error
    return _Fields(path, values).entry()


class _Fields:
    """The fields of one file, each read with its check."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def entry(self) -> Entry:
        key = self.path.stem
        if not _KEY.fullmatch(key):
            raise InputError(f"{self.path} is no key: a file is named in lower-case words joined by hyphens")
        for name in self.values:
            if name not in _REQUIRED + _OPTIONAL:
                raise self.fault(name, f"is no field of an entry: there are {', '.join(_REQUIRED + _OPTIONAL)}")
        return Entry(
            key=key,
            title=self.text("title"),
            authors=self.authors(),
            year=self.year(),
            arxiv=self.arxiv(),
            family=self.family(),
            sentence=self.words("sentence", 1, MOST_SENTENCE_WORDS),
            summary=self.words("summary", *SUMMARY_WORDS),
            refutation=self.text("refutation"),
            mixers=self.names("mixers"),
            tasks=self.names("tasks"),
            learners=self.names("learners"),
            related=self.related(),
        )

    def fault(self, name: str, said: str) -> InputError:
        return InputError(f"{self.path}: {name} {said}")

    def value(self, name: str) -> Any:
        if name not in self.values:
            raise self.fault(name, "is missing")
        return self.values[name]

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(name, f"is a text that is not empty, not {value!r}")
        return " ".join(value.split())

    def words(self, name: str, least: int, most: int) -> str:
        text = self.text(name)
        count = len(text.split())
        if not least <= count <= most:
            raise self.fault(name, f"has {count} words: use {least} to {most}")
        return text

    def names(self, name: str) -> tuple[str, ...]:
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
            raise self.fault(name, f"is a list of texts that are not empty, not {value!r}")
        if len(set(value)) < len(value):
            raise self.fault(name, "names something twice")
        return tuple(value)

    def authors(self) -> tuple[str, ...]:
        if "authors" not in self.values:
            return ()
        authors = self.names("authors")
        if not authors or OTHERS in authors[:-1] or authors == (OTHERS,):
            raise self.fault("authors", f'is a list of names, the last of which may be "{OTHERS}"')
        return authors

    def year(self) -> int | None:
        year = self.values.get("year")
        if "year" in self.values and (type(year) is not int or not 1900 <= year <= 2100):
            raise self.fault("year", f"is a year such as 2024, not {year!r}: leave it out where it is not recorded")
        return year

    def arxiv(self) -> str:
        arxiv = self.values.get("arxiv", "")
        if "arxiv" in self.values and not (isinstance(arxiv, str) and _ARXIV.fullmatch(arxiv)):
            raise self.fault("arxiv", f'is a number such as "2405.13956", not {arxiv!r}: leave it out where not known')
        return str(arxiv)

    def family(self) -> str:
        family = self.text("family")
        if family not in FAMILIES:
            raise self.fault("family", f"is {family!r}: there are {', '.join(FAMILIES)}")
        return family

    def related(self) -> tuple[str, ...]:
        related = self.names("related")
        if not RELATED[0] <= len(related) <= RELATED[1] or self.path.stem in related:
            raise self.fault("related", f"is a list of {RELATED[0]} to {RELATED[1]} keys of other entries")
        return related
