"""`contexture list tasks|learners|environments|agents|mixers|metrics|papers`: what is registered, from the cards."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from contexture.commands.console import console

if TYPE_CHECKING:
    from contexture.evaluation.metrics import Metric

HEADINGS = {
    "learners": ("name", "kind", "targets", "year", "summary", "paper"),
    "mixers": ("year", "name", "paper", "causal", "state", "cost", "summary"),
    "tasks": ("name", "episodes", "metric", "summary", "paper"),
    "environments": ("name", "family", "summary", "paper"),
    "agents": ("name", "kind", "families", "year", "summary", "paper"),
    "metrics": ("name", "better", "summary"),
    "papers": ("year", "name", "claims", "title", "arxiv"),
}


TITLES = {"name": "mechanism"}
"""What the columns of a table of mixers are called, where it is not the card's word; they stop before the summary."""

ROOMY = 120
"""Columns of a terminal from which on mixers stand with their papers; a narrower one shows the papers' numbers."""


def _rows(what: str) -> list[dict[str, Any]]:
    if what == "metrics":
        from contexture.evaluation.metrics import ACTED, METRICS

        return [
            {"name": name, "better": _better(metric), "summary": metric.summary}
            for name, metric in {**METRICS, **ACTED}.items()
        ]
    if what == "papers":
        from contexture.discovery import papers

        return [
            {"year": p.year, "name": p.key, "claims": len(p.claims), "title": p.title, "arxiv": p.arxiv}
            for p in sorted(papers().values(), key=lambda paper: (paper.year, paper.key))
        ]
    from contexture.discovery import registered

    rows = []
    for cls in registered(what).values():
        row = {heading: getattr(cls.card, heading) for heading in HEADINGS[what]}
        rows.append({key: sorted(value) if isinstance(value, frozenset) else value for key, value in row.items()})
    if what == "tasks":
        from contexture.tasks.tables import BUNDLED

        rows = [row for row in rows if row["name"] != "table"]
        rows += [
            {
                "name": name,
                "episodes": "table",
                "metric": "",
                "summary": summary,
                "paper": "scikit-learn's bundled data",
            }
            for name, summary in BUNDLED.items()
        ]
    return _by_year(rows) if what == "mixers" else rows


def _by_year(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["year"] or 0, row["name"]))


def _hybrids() -> list[dict[str, Any]]:
    """Published arrangements of mixers over layers; their pattern goes where a mixer's name would."""
    from contexture.models.hybrids import HYBRIDS

    return [{"year": h.year, "name": h.name, "paper": h.paper, "pattern": h.pattern} for h in HYBRIDS]


def _better(metric: "Metric") -> str:
    return f"at {metric.level}" if metric.direction == "level" else metric.direction


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {None: "", True: "yes", False: "no"}.get(value, str(value)) if not isinstance(value, str) else value


def run(options: argparse.Namespace) -> int:
    """Print a table, or with --json a list of objects, on standard output."""
    rows = _rows(options.what)
    hybrids = _hybrids() if options.what == "mixers" else []
    if options.json:
        rows = _by_year(rows + hybrids) if hybrids else rows
        json.dump(rows, sys.stdout, indent=2)
        print()
        return 0
    from rich import box
    from rich.table import Table

    screen = console(stderr=False)
    mixers = options.what == "mixers"
    narrow = mixers and screen.width < ROOMY
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=not narrow, padding=(0, 0 if narrow else 1))
    headings = HEADINGS[options.what][:-1] if mixers else HEADINGS[options.what]
    for heading in headings:
        title = TITLES.get(heading, heading) if mixers else heading
        table.add_column(title, overflow="fold", no_wrap=heading not in ("summary", "paper", "targets", "families"))
    for row in rows:
        shown = row | {"paper": row["paper"].rpartition(", ")[2]} if narrow else row
        table.add_row(*(_text(shown[heading]) for heading in headings))
    screen.print(table)
    if hybrids:
        patterns = Table(
            box=box.SIMPLE_HEAD, pad_edge=False, title="hybrids, as patterns of layers", title_justify="left"
        )
        for heading in ("year", "hybrid", "paper", "pattern"):
            patterns.add_column(heading, overflow="fold", no_wrap=heading in ("year", "hybrid"))
        for row in hybrids:
            patterns.add_row(str(row["year"]), row["name"], row["paper"], row["pattern"])
        screen.print(patterns)
    return 0
