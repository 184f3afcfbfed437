"""What changed among the published results since the last letter, as a letter.

    results now  +  what the last letter knew  ─▶  changes  ─▶  a message in plain text and in HTML

What was known is a small file of plain JSON, replaced as a whole and only after a server has accepted the message.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, Literal

from contexture.catalogue.changes import News, news
from contexture.catalogue.feed import anchor
from contexture.catalogue.library import Library
from contexture.catalogue.view import FileLinks, View, render
from contexture.errors import InputError
from contexture.reports.numbers import number
from contexture.store.results import read_result, write_result

KNOWN = "digest"
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
"""What HTML calls a valid e-mail address: no quoting, no comments, nothing that could begin another header."""

Kind = Literal["new", "verdict", "value", "terms"]
HEADINGS: dict[Kind, str] = {
    "verdict": "Verdicts that changed",
    "new": "New results",
    "value": "Measured anew",
    "terms": "Measured under other terms",
}
"""Kinds of changes in the order of a letter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A result that is new or says something else than before: `before` holds the verdict and the number known."""

    kind: Kind
    news: News
    before: Mapping[str, Any] = field(default_factory=dict)

    @property
    def was(self) -> str:
        """What the last letter said, "" for what is new."""
        return f"{self.before['verdict']}, {number(self.before['value'])}" if self.before else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Digest:
    """Everything that changed. withdrawn: names of results no longer published; now: what is known from here on."""

    changes: tuple[Change, ...]
    withdrawn: tuple[str, ...]
    now: Mapping[str, Mapping[str, Any]]
    first: bool

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.changes and not self.withdrawn

    def groups(self) -> list[tuple[str, list[Change]]]:
        """The changes of each kind under its heading, without empty ones."""
        grouped = [(title, [one for one in self.changes if one.kind == kind]) for kind, title in HEADINGS.items()]
        return [(title, held) for title, held in grouped if held]


def digest(library: Library, known: Mapping[str, Mapping[str, Any]] | None) -> Digest:
    """What changed since `known`, which is None before the first letter."""
    before = known or {}
    found = news(library)
    changes = [
        Change(kind=_kind(one, before[one.name]), news=one, before=before[one.name])
        for one in found
        if one.name in before and before[one.name]["mark"] != one.mark
    ]
    changes += [Change(kind="new", news=one) for one in found if one.name not in before]
    now = {one.name: {"mark": one.mark, "verdict": one.result.verdict, "value": one.result.value} for one in found}
    return Digest(
        changes=tuple(changes), withdrawn=tuple(sorted(before.keys() - now.keys())), now=now, first=known is None
    )


def _kind(one: News, before: Mapping[str, Any]) -> Kind:
    if before["verdict"] != one.result.verdict:
        return "verdict"
    return "value" if before["value"] != one.result.value else "terms"


def read_known(path: Path) -> dict[str, dict[str, Any]] | None:
    """What the last letter knew, None before the first; InputError for a file that is none of ours."""
    if not path.exists():
        return None
    held = read_result(path).get(KNOWN)
    if not isinstance(held, dict) or not all(_is_known(one) for one in held.values()):
        raise InputError(f"{path} does not hold what a digest knew: give --state another file")
    return held


def _is_known(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and one.keys() == {"mark", "verdict", "value"}
        and isinstance(one["mark"], str)
        and isinstance(one["verdict"], str)
        and isinstance(one["value"], int | float)
    )


def write_known(path: Path, found: Digest) -> None:
    """Keep what is known from here on."""
    write_result(path.resolve(), {KNOWN: dict(found.now)})


def addresses(text: str, *, option: str) -> list[str]:
    """Every plain address of a list separated by commas; InputError for what is none."""
    found = [address.strip() for address in text.split(",")]
    if not all(_ADDRESS.fullmatch(address) for address in found):
        raise InputError(f"{option} {text!r} is not an address such as you@example.org (or several, with commas)")
    return list(dict.fromkeys(found))


def compose(
    found: Digest, *, sender: str, to: Sequence[str], site: str = "", when: datetime | None = None
) -> EmailMessage:
    """The letter, in plain text and in HTML.

    site: the address of a built site to which the results link, "" for none.
    """
    link, root = FileLinks(), site.rstrip("/") + "/" if site else ""
    values = {
        "digest": found,
        "site": site,
        "address": lambda one: root + link("papers", one.record.key, anchor=anchor(one.claim.name)) if root else "",
        "subject": subject(found),
    }
    view = View(link=link)
    message = EmailMessage()
    message["Subject"] = values["subject"]
    message["From"], message["To"] = sender, ", ".join(to)
    message["Date"] = format_datetime(when or datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(render("digest.txt", view, **values), cte="quoted-printable")
    message.add_alternative(render("digest.html", view, **values), subtype="html", cte="quoted-printable")
    return message


def subject(found: Digest) -> str:
    """What stands in the list of letters."""
    count = len(found.changes) + len(found.withdrawn)
    turned = sum(one.kind == "verdict" for one in found.changes)
    results = f"{count} result{'s' if count != 1 else ''}"
    if found.first:
        return f"Contexture: {results} published so far"
    return f"Contexture: {results} changed" + (f", {turned} of them in the verdict" if turned else "")
