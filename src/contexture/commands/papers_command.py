"""`contexture papers search | show | export`: the catalogue on the command line."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from contexture.commands.console import console, say
from contexture.errors import InputError

if TYPE_CHECKING:
    from contexture.catalogue.library import Library, Record
    from contexture.catalogue.query import Query

MOST_LISTED = 40
"""Papers that a table shows when it is not told which."""


def run(options: argparse.Namespace) -> int:
    """Do what was asked with the catalogue."""
    from contexture.catalogue.library import load_library

    library = load_library(options.results)
    return {"search": _search, "show": _show, "export": _export}[options.action](library, options)


def _search(library: "Library", options: argparse.Namespace) -> int:
    from contexture.catalogue.export import to_json
    from contexture.catalogue.search import Search

    listing = Search(library).select(_query(options))
    if options.json:
        _print_json([to_json(record) for record in listing.records])
        return 0
    if not listing.records:
        say("no paper has all of this: fewer words, or one option less, will find more")
        return 0
    _print_table(listing.records)
    return 0


def _query(options: argparse.Namespace) -> "Query":
    """The search that the options mean; InputError for a value that a facet with a fixed list does not have."""
    from contexture.catalogue.entry import FAMILIES
    from contexture.catalogue.library import STATUSES, VERDICTS
    from contexture.catalogue.query import FACETS, SORT, TEXT, Query

    fixed = {"family": tuple(FAMILIES), "status": STATUSES, "verdict": VERDICTS}
    for facet, known in fixed.items():
        for value in getattr(options, facet):
            if value not in known:
                raise InputError(f"there is no {facet} {value!r}: there are {', '.join(known)}")
    pairs = [(facet, value) for facet in FACETS for value in getattr(options, facet)]
    return Query.parse([(TEXT, " ".join(options.words)), *pairs, (SORT, options.sort)])


def _print_table(records: "tuple[Record, ...]") -> None:
    from rich import box
    from rich.table import Table

    screen = console(stderr=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("key", "year", "status", "verdicts", "title"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("key", "year", "status"))
    shown = records[:MOST_LISTED] if screen.is_terminal else records
    for record in shown:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in record.verdicts.items())
        table.add_row(record.key, str(record.entry.year or ""), record.status, verdicts, record.entry.title)
    screen.print(table)
    if len(shown) < len(records):
        say(f"{len(records)} papers, the first {len(shown)} shown; --json prints all")


def _show(library: "Library", options: argparse.Namespace) -> int:
    from contexture.catalogue.export import to_json

    record = library.record(options.key)
    if options.json:
        _print_json(to_json(record))
        return 0
    width = min(console(stderr=False).width, 100)
    print("\n".join(_described(library, record, width)))
    return 0


def _described(library: "Library", record: "Record", width: int) -> Iterable[str]:
    from contexture.catalogue.pages_paper import command, related
    from contexture.reports.claims import bound, interval

    def wrapped(text: str, indent: str = "") -> str:
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)

    entry = record.entry
    yield wrapped(entry.title)
    about = (
        ", ".join(record.authors),
        str(entry.year or "year not recorded"),
        record.arxiv and f"arXiv:{record.arxiv}",
        record.status,
    )
    yield wrapped("; ".join(part for part in about if part))
    yield "\n" + wrapped(entry.summary)
    yield "\n" + wrapped(f"Refuted by: {entry.refutation}")
    for claim in record.claims:
        held = claim.published
        yield "\n" + wrapped(claim.sentence)
        if held is None:
            yield "  not published yet"
            continue
        r = held.result
        yield f"  {r.verdict}: {interval(r.value, r.low, r.high)}, wanted {bound(r)}"
        for what, side in (("reference", r.reference), ("control", r.control)):
            yield wrapped(f"{what}: {interval(side.value, side.low, side.high)}, {side.sentence}", "  ")
    for what, names in (
        ("mechanisms", record.uses("mixers")),
        ("tasks", record.uses("tasks")),
        ("learners", record.uses("learners")),
        ("related", [other.key for other in related(library, record)]),
        ("measure", [command(record)]),
    ):
        if any(names):
            yield f"\n{what}: {', '.join(names)}"


def _export(library: "Library", options: argparse.Namespace) -> int:
    from contexture.catalogue.export import bibtex, to_csv, to_json

    records = list(library.papers.values())
    match options.format:
        case "json":
            _print_json([to_json(record) for record in records])
        case "csv":
            sys.stdout.write(to_csv(records))
        case _:
            sys.stdout.write("\n".join(map(bibtex, records)))
    return 0


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()
