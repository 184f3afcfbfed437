"""Claims as a table: for the terminal, live or at the end, and as a page of Markdown.

claim | measured | threshold | reference | control | verdict | seconds
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from contexture.claims.harness import Result
from contexture.claims.protocol import Paper
from contexture.reports.numbers import number, seconds

if TYPE_CHECKING:
    from rich.table import Table

WAITING = "…"
_STYLES = {"held": "green", "mechanism-checked": "green", "not-held": "red", "undecided": "yellow"}
_SIGNS = {"below": "<", "above": ">"}

Rows = Mapping[str, Result | None]
"""Results by the claim's name; None while it has not been measured."""


def bound(result: Result, *, signs: Mapping[str, str] = _SIGNS) -> str:
    """The threshold with its direction.

    >>> from types import SimpleNamespace
    >>> bound(SimpleNamespace(direction="below", threshold=0.05))
    '< 0.0500'
    """
    return f"{signs[result.direction]} {number(result.threshold)}"


def interval(value: float, low: float, high: float) -> str:
    """A number and the ends of its interval.

    >>> interval(0.25, 0.2, 0.3)
    '0.250 [0.200, 0.300]'
    """
    return f"{number(value)} [{number(low)}, {number(high)}]"


def table(paper: Paper, rows: Rows, *, running: str = "", unicode: bool = True) -> "Table":
    """The claims of a paper, those that are measured with their numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(
        box=box.SIMPLE_HEAD if unicode else box.ASCII2,
        pad_edge=False,
        title=f"{paper.title} ({paper.year})",
        title_justify="left",
    )
    for heading in ("claim", "measured", "threshold", "reference", "control", "verdict", "time"):
        found.add_column(heading, overflow="fold", no_wrap=heading not in ("claim", "measured"))
    waiting = WAITING if unicode else "..."
    for claim in paper.claims:
        result = rows.get(claim.name)
        if result is None:
            state = "measuring" if claim.name == running else ""
            found.add_row(claim.sentence, waiting, "", "", "", Text(state, style="dim"), "")
            continue
        found.add_row(
            claim.sentence,
            interval(result.value, result.low, result.high),
            bound(result),
            number(result.reference.value),
            number(result.control.value),
            Text(result.verdict, style=_STYLES[result.verdict]),
            seconds(result.seconds),
        )
    return found


def remarks(result: Result) -> list[str]:
    """What a reader should know of a claim besides its row."""
    lines = [f"{result.name} at {result.scale} scale: {result.verdict}" + (f" ({result.note})" if result.note else "")]
    lines.append(f"  reference: {result.reference.sentence}: {result.reference.verdict}")
    lines.append(f"  control: {result.control.sentence}: {result.control.verdict}")
    if result.kind == "trained" and result.scale == "smoke":
        lines.append("  at smoke scale a trained model has hardly begun: only the reference and the control are judged")
    for what, said in (("leaves out", result.leaves_out), ("mechanism", result.mechanism), ("tried", result.tried)):
        if said:
            lines.append(f"  {what}: {said}")
    return lines


def markdown(papers: Sequence[tuple[Paper, Sequence[Result]]], *, figures: str) -> str:
    """The generated table of every published paper; `figures` is the folder of pictures, relative to the page."""
    parts = []
    for paper, results in papers:
        source = f" [arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
        parts.append(f"### {paper.title}\n\n{paper.authors}, {paper.year}.{source} `contexture claim {paper.key}`\n")
        parts.append("| claim | measured | reference | control | verdict | figure |\n|---|---|---|---|---|---|")
        parts.extend(_row(paper, result, figures) for result in results)
        parts.extend(f"\nNot measured: {sentence} ({reason})" for sentence, reason in paper.left_out.items())
        parts.append("")
    return "\n".join(parts)


def _row(paper: Paper, result: Result, figures: str) -> str:
    measured = f"{interval(result.value, result.low, result.high)}, {bound(result)}"
    ideal = f"{number(result.reference.value)}: {result.reference.sentence}"
    foil = f"{number(result.control.value)}: {result.control.sentence}"
    verdict = result.verdict + (f" ({result.note})" if result.note else "") + f", {result.scale}"
    picture = f"![{result.name}]({figures}/{paper.key}-{result.name}.svg)"
    return "| " + " | ".join((result.sentence, measured, ideal, foil, verdict, picture)) + " |"
