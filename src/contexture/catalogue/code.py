"""The code behind claims and mechanisms, highlighted."""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

import contexture
from contexture.catalogue.library import Claimed, Library
from contexture.errors import InputError

PACKAGE = Path(contexture.__file__).parent.resolve()


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """Lines of a file: the file's name in the package (without .py), the first line's number, what they say."""

    file: str
    line: int
    lines: Markup


@cache
def highlighted(text: str) -> Markup:
    """Python source as marked-up text, a line for a line."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n"))


def excerpt(thing: Callable[..., Any] | type[Any]) -> Excerpt | None:
    """A class or function of the package as it stands in its file; None for what lies elsewhere."""
    name = code_name(Path(inspect.getfile(thing)))
    if name is None:
        return None
    lines, first = inspect.getsourcelines(thing)
    return Excerpt(file=name, line=first, lines=highlighted(textwrap.dedent("".join(lines))))


def excerpts_of_claim(claim: Claimed) -> list[Excerpt]:
    """What measures a claim, its reference and its control."""
    if claim.code is None:
        return []
    sides = (claim.code, claim.code.ideal, claim.code.foil)
    found = [excerpt(side.measure) for side in sides if side is not None]
    return [one for one in found if one is not None]


def code_name(path: Path) -> str | None:
    """The name of a file's page: its place in the package without the suffix; None for a file that lies elsewhere."""
    path = path.resolve()
    return path.relative_to(PACKAGE).with_suffix("").as_posix() if path.is_relative_to(PACKAGE) else None


def code_pages(library: Library) -> dict[str, Path]:
    """Every file that has a page, by name: those of papers, mixers, tasks and learners, and no other."""
    files = {record.file for record in library.papers.values()}
    files |= {part.file for room in library.parts.values() for part in room.values()}
    named = {code_name(file): file for file in files if file is not None}
    return {name: file for name, file in sorted((n, f) for n, f in named.items() if n is not None)}


def whole(library: Library, name: str) -> list[Markup]:
    """A file's lines, highlighted; InputError for a file that has no page."""
    if name not in library.code:
        raise InputError(f"no page shows the code {name[:80]!r}")
    return [Markup(line) for line in highlighted(library.code[name].read_text(encoding="utf-8")).split("\n")]
