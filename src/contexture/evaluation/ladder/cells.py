"""One cell of the ladder: a mixer on a rung at a matched size. What it is made of, what came out, and its file.

A cell's file holds its recipe and its result; it counts only for the very recipe that it was made from.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from contexture.discovery import find, registered
from contexture.errors import InputError
from contexture.evaluation.ladder.budget import Budget
from contexture.evaluation.ladder.rungs import Rung
from contexture.protocols import MixerCard
from contexture.store import json_text
from contexture.store.atomic import write_file

SCHEMA = "contexture.ladder-cell/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """A mixer on the ladder: what the user called it, and its card."""

    spec: str
    label: str
    card: MixerCard
    source: str = ""
    """SHA-256 of a user's own file and of what it imports beside it, so that a changed one is trained again."""


def entrant(spec: str) -> Entrant:
    """A registered mixer by its name, or a user's own as "file.py:Class"; InputError for one that sees whole sets."""
    cls = find(spec, "mixers")
    if not cls.card.causal:
        raise InputError(f"the mixer {spec!r} sees whole sets and has no sequence to run over: leave it out")
    own = ".py:" in spec
    source = _source(Path(spec.rpartition(":")[0])) if own else ""
    return Entrant(spec=spec, label=f"{cls.card.name} (own)" if own else spec, card=cls.card, source=source)


def _source(path: Path) -> str:
    """SHA-256 of a file and of every file of its folder that it imports, by way of others too."""
    finder = ModuleFinder(path=[str(path.parent.resolve())])
    finder.run_script(str(path))
    files = sorted(file for file in (getattr(one, "__file__", None) for one in finder.modules.values()) if file)
    digests = (hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files)
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def entrants(specs: Sequence[str]) -> list[Entrant]:
    """The mixers asked for, each under a label of its own: those whose cards share a name go by what the user wrote.

    Raises InputError for one that is asked for twice, and as `entrant` does.
    """
    if len(set(specs)) < len(specs):
        raise InputError("a mixer is asked for twice")
    found = [entrant(spec) for spec in specs]
    taken = Counter(one.label for one in found)
    return [one if taken[one.label] == 1 else replace(one, label=one.spec) for one in found]


def causal_mixers() -> list[str]:
    """The names of all registered mixers that a sequence model can use."""
    return [name for name, cls in registered("mixers").items() if cls.card.causal]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A mixer, a rung, and what is matched."""

    entrant: Entrant
    rung: Rung
    match: str
    budget: Budget

    @property
    def file_name(self) -> str:
        """The name of the cell's file: readable, and of no other cell."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", self.entrant.spec).strip("-.")
        if plain != self.entrant.spec:
            plain += "-" + hashlib.sha256(self.entrant.spec.encode()).hexdigest()[:8]
        return f"{plain}--{self.rung.name}--{self.match}.json"

    def recipe(self) -> dict[str, Any]:
        """Everything that decides the result, besides machine and builds, in plain values."""
        budget = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.budget).items()}
        del budget["rungs"]
        rung = {"name": self.rung.name, "task": self.rung.task, "settings": dict(self.rung.settings)}
        mixer = {"name": self.entrant.spec, "source": self.entrant.source}
        return {"mixer": mixer, "rung": rung, "match": self.match, "budget": budget}


def write_cell(folder: Path, cell: Cell, result: Mapping[str, Any]) -> None:
    """Keep a result, whole or not at all."""
    document = {"schema": SCHEMA, "recipe": cell.recipe(), "result": dict(result)}
    text = json_text.dumps(document, what=f"the cell {cell.file_name}", indent=1)
    write_file(folder / cell.file_name, text.encode() + b"\n")


def read_cell(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The kept result of exactly this cell; None if there is none, or of another recipe, or one that was cut short."""
    try:
        document = json_text.loads((folder / cell.file_name).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("recipe") != cell.recipe():
        return None
    result = document.get("result")
    return result if isinstance(result, dict) else None
