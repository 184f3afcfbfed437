"""Claims as one HTML file that opens from disk, with every figure inlined; nothing in it comes from elsewhere."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from contexture.claims.harness import Result
from contexture.claims.protocol import Paper
from contexture.reports.claim_figures import element
from contexture.reports.claims import bound, interval
from contexture.reports.numbers import seconds
from contexture.reports.palette import DARK, LIGHT, custom_properties
from contexture.store.atomic import write_file


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("contexture.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds
    environment.filters["bound"] = bound
    environment.filters["interval"] = lambda side: interval(side.value, side.low, side.high)
    return environment.get_template("claims.html")


def to_html(
    papers: Sequence[tuple[Paper, Sequence[Result]]], *, command: str, environment: Mapping[str, Any], scale: str
) -> str:
    """The page as text."""
    shown = [
        (paper, [(result, Markup(element(result, name=f"{paper.key}-{result.name}"))) for result in results])
        for paper, results in papers
    ]
    return _template().render(
        papers=shown,
        command=command,
        environment=environment,
        scale=scale,
        light=custom_properties(LIGHT),
        dark=custom_properties(DARK),
    )


def write_claims_report(
    papers: Sequence[tuple[Paper, Sequence[Result]]],
    path: str | Path,
    *,
    command: str,
    environment: Mapping[str, Any],
    scale: str,
) -> None:
    """Write the page; it appears whole or not at all."""
    text = to_html(papers, command=command, environment=environment, scale=scale)
    write_file(Path(path).resolve(), text.encode())
