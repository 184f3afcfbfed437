"""The collection for other programs: JSON, CSV and BibTeX."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from contexture.catalogue.library import Claimed, Record
from contexture.catalogue.parts import ROOMS

COLUMNS = (
    "key", "title", "authors", "year", "arxiv", "family", "status", "verdicts", "sentence", "summary", "refutation",
    "mixers", "tasks", "learners", "related", "claims",
)  # fmt: skip

_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})


def to_json(record: Record) -> dict[str, Any]:
    """A paper as plain values: the entry's fields, status, verdicts by count, and its claims with what was measured."""
    entry = record.entry
    return {
        "key": entry.key,
        "title": entry.title,
        "authors": list(record.authors),
        "year": entry.year,
        "arxiv": record.arxiv,
        "family": entry.family,
        "status": record.status,
        "verdicts": dict(record.verdicts),
        "sentence": entry.sentence,
        "summary": entry.summary,
        "refutation": entry.refutation,
        **{room: list(record.uses(room)) for room in ROOMS},
        "related": list(entry.related),
        "claims": [_claim(claim) for claim in record.claims],
        "left_out": dict(record.left_out),
    }


def _claim(claim: Claimed) -> dict[str, Any]:
    held = claim.published
    if held is None:
        return {"name": claim.name, "sentence": claim.sentence, "published": False}
    measured = held.result.to_json()
    about = {"command": held.command, "at": held.at, "environment": dict(held.environment)}
    return {"name": claim.name, "sentence": claim.sentence, "published": True, **measured, **about}


def to_csv(records: Iterable[Record]) -> str:
    """A table with a row for each paper and COLUMNS; lists are joined by semicolons, claims are counted."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(COLUMNS)
    for record in records:
        values = to_json(record)
        values["claims"] = len(record.claims)
        values["verdicts"] = [f"{verdict} {count}" for verdict, count in record.verdicts.items()]
        table.writerow("; ".join(v) if isinstance(v, list) else v for v in (values[name] for name in COLUMNS))
    return written.getvalue()


def bibtex(record: Record) -> str:
    """The paper's citation; what is not known is left out."""
    fields = {"title": "{" + record.entry.title.translate(_LATEX) + "}"}
    if record.authors:
        fields["author"] = " and ".join(name.translate(_LATEX) for name in record.authors)
    if record.entry.year is not None:
        fields["year"] = str(record.entry.year)
    if record.arxiv:
        fields |= {"eprint": record.arxiv, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{record.arxiv}"}
    width = max(map(len, fields))
    lines = ",\n".join(f"  {name:<{width}} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{record.key},\n{lines}\n}}\n"
