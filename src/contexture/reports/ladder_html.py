"""The recall ladder as one HTML file that opens from disk, in the manner of a comparison's report."""

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from contexture.errors import InputError
from contexture.evaluation.ladder.ladder import Ladder, Placing, Standing
from contexture.reports.html import SCRIPT, in_script, pairs
from contexture.reports.ladder_figures import LOOKS, accuracy_by_seconds, accuracy_by_state, drawn
from contexture.reports.ladder_terminal import TITLES, missing
from contexture.reports.numbers import MISSING, count, seconds, size
from contexture.reports.palette import DARK, LIGHT, custom_properties
from contexture.store.atomic import write_file

EXPLAINED = {
    "parameters": "Every mixer has the width at which its model holds as many parameters as the softmax model.",
    "state": "Every mixer has the width at which its model keeps equally many bytes after the rung's last token.",
    "seconds": "Every mixer has the width of the first kind and trains for equally many processor seconds.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """An accuracy in the table: its text, its interval, and how strongly it is tinted."""

    value: str
    interval: str
    tint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A mixer's row of a panel."""

    name: str
    paper: str
    hue: str
    state: str
    parameters: str
    seconds: str
    cells: tuple[Cell, ...]
    mean: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """What the page shows for one thing that was made equal."""

    match: str
    title: str
    explained: str
    rows: tuple[Row, ...]
    figures: Mapping[str, Markup]
    missing: tuple[str, ...]


def write_ladder(ladder: Ladder, path: str | Path) -> Path:
    """Write the report, whole or not at all, and return its path; InputError where the place cannot be written to."""
    path = Path(path)
    try:
        write_file(path, render_ladder(ladder).encode())
    except OSError as error:
        raise InputError(f"the report cannot be written to {path}: {error.strerror or error}") from error
    return path


def render_ladder(ladder: Ladder) -> str:
    """The report as HTML text; the same ladder gives the same text."""
    environment = Environment(loader=PackageLoader("contexture.reports"), autoescape=True, undefined=StrictUndefined)
    record, budget = ladder.to_json(), ladder.budget
    settings = {
        "budget": budget.name,
        "model": f"{budget.num_layers} layers of mixer, norm and shortcut, {budget.num_heads} heads, learned positions",
        "steps": budget.steps,
        "sequences a step": budget.batch,
        "tried": list(map(str, budget.candidates)),
        "seeds": budget.num_seeds,
        "sequences judged for each seed": budget.num_evaluated,
    }
    return str(
        environment.get_template("ladder.html").render(
            ladder=ladder,
            panels=[_panel(ladder, match) for match in ladder.matches],
            num_points=len(ladder.entrants),
            light=Markup(custom_properties(LIGHT)),
            dark=Markup(custom_properties(DARK)),
            chance={name: f"{1 - value:.2f}" for name, value in ladder.chance.items()},
            rung_settings={rung.name: ", ".join(f"{k} {v}" for k, v in rung.settings.items()) for rung in ladder.rungs},
            measured=re.sub(r"^(\S+)T(\d+:\d+):.*", r"\1, \2 UTC", ladder.measured_at),
            settings=pairs(settings),
            environment=pairs(ladder.environment),
            data=Markup(in_script(record)),
            download=f"data:application/json;base64,{base64.b64encode(record.encode()).decode()}",
            script=Markup(SCRIPT),
            script_hash=f"sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}",
        )
    )


def _panel(ladder: Ladder, match: str) -> Panel:
    figures = {}
    if drawn(ladder, match):
        figures = {
            "state_wide": accuracy_by_state(ladder, match),
            "state_narrow": accuracy_by_state(ladder, match, format="narrow"),
            "seconds_wide": accuracy_by_seconds(ladder, match),
            "seconds_narrow": accuracy_by_seconds(ladder, match, format="narrow"),
        }
    return Panel(
        match=match,
        title=TITLES[match].capitalize(),
        explained=EXPLAINED[match],
        rows=tuple(_row(ladder, one) for one in ladder.standings(match)),
        figures={name: Markup(svg) for name, svg in figures.items()},
        missing=tuple(missing(ladder, match)),
    )


def _row(ladder: Ladder, standing: Standing) -> Row:
    card = standing.entrant.card
    return Row(
        name=standing.entrant.label,
        paper=f"{card.paper} ({card.year})" if card.year and str(card.year) not in card.paper else card.paper,
        hue=LOOKS[card.state][0] if card.state in LOOKS else "hue-3",
        state=size(standing.state_bytes),
        parameters=count(standing.parameters),
        seconds=seconds(standing.seconds),
        cells=tuple(_cell(standing.placings.get(rung.name), ladder.chance[rung.name]) for rung in ladder.rungs),
        mean=MISSING if math.isnan(standing.mean) else f"{standing.mean:.3f}",
    )


def _cell(placing: Placing | None, chance_error: float) -> Cell:
    """Tinted by how far the accuracy lies between chance and one."""
    if placing is None or placing.status != "done":
        return Cell(value=MISSING, interval="", tint="0")
    share = (placing.accuracy - (1 - chance_error)) / chance_error
    ends = f"{placing.low:.2f} – {placing.high:.2f}" if math.isfinite(placing.low) else ""
    return Cell(value=f"{placing.accuracy:.2f}", interval=ends, tint=f"{50 * min(1.0, max(0.0, share)):.0f}")
