"""A comparison as one HTML file that opens from disk: no network, no fonts or scripts from elsewhere, light and dark.

Everything that came from a task, a learner or a table is escaped; a content security policy forbids whatever is not in
the file. The only script is the copy button's, and the page loses nothing else without it.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from contexture.errors import InputError
from contexture.evaluation.comparison import Comparison
from contexture.protocols import Measurement
from contexture.reports.figures import learning_curve, leaving, trade_off
from contexture.reports.heatmap import heat_map
from contexture.reports.numbers import column, count, listed, number, seconds, size
from contexture.reports.palette import DARK, LIGHT, custom_properties, looks
from contexture.reports.summary import summary
from contexture.reports.terminal import mark
from contexture.store.atomic import write_file

SCRIPT = """
const button = document.getElementById("copy"), command = document.getElementById("command");
if (button && command) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.textContent);
    } catch {
      getSelection().selectAllChildren(command);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
"""

_DISTANCES = {
    "regression": "Mean squared difference of two learners' predictions, over the variance of the reference's.",
    "classification": "Jensen-Shannon divergence between two learners' class probabilities, in bits (at most 1).",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A score in the table: its text, its interval's text, and "*", "~" or nothing."""

    value: str
    interval: str
    mark: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A learner's row of the table."""

    name: str
    kind: str
    hue: str
    classes: str
    cells: tuple[Cell, ...]
    seconds: str
    parameters: str
    state: str


def write_report(comparison: Comparison, path: str | Path) -> Path:
    """Write the report, whole or not at all, and return its path; InputError where the place cannot be written to."""
    path = Path(path)
    try:
        write_file(path, render(comparison).encode())
    except OSError as error:
        raise InputError(f"the report cannot be written to {path}: {error.strerror or error}") from error
    return path


def render(comparison: Comparison) -> str:
    """The report as HTML text; the same comparison gives the same text."""
    drawn = _drawings(comparison) if comparison.measurements else {}
    record = json.dumps(comparison.record(), allow_nan=False)
    metric = comparison.scoring
    return str(
        _template().render(
            c=comparison,
            metric=metric,
            summary=summary(comparison),
            light=Markup(custom_properties(LIGHT)),
            dark=Markup(custom_properties(DARK)),
            num_learners=len(comparison.measurements) + 1,
            rows=_rows(comparison),
            n=max((m.n for m in comparison.measurements), default=0),
            unit="episodes" if comparison.method.startswith("bootstrap") else "splits",
            level=f"{100 * comparison.level:g}",
            better={"lower": "lower is better", "higher": "higher is better", "level": f"it should be {metric.level}"}[
                metric.direction
            ],
            oracle=(comparison.oracle or "").removesuffix(" (oracle)"),
            chance=None if comparison.chance is None else number(comparison.chance),
            leaving=listed(leaving(comparison)),
            distance_text=_DISTANCES["classification" if "classification" in metric.targets else "regression"],
            measured=re.sub(r"^(\S+)T(\d+:\d+):.*", r"\1, \2 UTC", comparison.measured_at),
            settings=pairs({**comparison.settings, "metric": metric.name, "intervals": comparison.method}),
            environment=pairs(comparison.environment),
            remarks=_remarks(comparison),
            data=Markup(in_script(record)),
            download=f"data:application/json;base64,{base64.b64encode(record.encode()).decode()}",
            filename=f"{_plain_name(comparison.task)}.json",
            script=Markup(SCRIPT),
            script_hash=f"sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}",
            **{"curve_wide": "", "curve_narrow": "", "trade_wide": "", "trade_narrow": "", "distances": "", **drawn},
        )
    )


def _drawings(comparison: Comparison) -> dict[str, Markup]:
    found = {
        "curve_wide": learning_curve(comparison),
        "curve_narrow": learning_curve(comparison, format="narrow"),
        "trade_wide": trade_off(comparison),
        "trade_narrow": trade_off(comparison, format="narrow"),
    }
    if any(comparison.distances.values()):
        found["distances"] = heat_map(comparison)
    return {name: Markup(svg) for name, svg in found.items()}


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("contexture.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return environment.get_template("comparison.html")


def _rows(comparison: Comparison) -> list[Row]:
    looking = looks(comparison)
    everyone = comparison.measurements
    values = [column([m.value[i] for m in everyone]) for i in range(len(comparison.context))]
    return [
        Row(
            name=comparison.shown(m.name),
            kind=m.kind,
            hue=looking[m.name].hue,
            classes=" ".join(_classes(comparison, m)),
            cells=tuple(
                Cell(value=values[i][k], interval=_interval(m, i, values[i][k]), mark=mark(comparison, m.name, i))
                for i in range(len(comparison.context))
            ),
            seconds=seconds(m.seconds),
            parameters=count(m.parameters),
            state=size(m.state_bytes),
        )
        for k, m in enumerate(everyone)
    ]


def _classes(comparison: Comparison, measurement: Measurement) -> Iterable[str]:
    if measurement.name == comparison.oracle:
        yield "oracle"
    elif measurement.kind != "classical":
        yield "trained"


def _interval(measurement: Measurement, i: int, value: str) -> str:
    """Both ends with the decimals of the value itself."""
    low, high = measurement.low[i], measurement.high[i]
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    if "e" in value:
        return f"{number(low)} – {number(high)}"
    decimals = len(value.partition(".")[2])
    return f"{low:,.{decimals}f} – {high:,.{decimals}f}"


def _remarks(comparison: Comparison) -> list[str]:
    found = [f"{n} {comparison.counted}: {reason}" for n, reason in comparison.left_out.items()]
    found += [f"{name}: {reason}" for name, reason in comparison.skipped.items()]
    return found + [f"{name}: {said}" for name, notes in comparison.notes.items() for said in notes]


def pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys and values as text, without those that say nothing."""
    texts = ((key.replace("_gib", " (GiB)").replace("_", " "), _text(value)) for key, value in values.items())
    return [(key, text) for key, text in texts if text]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return "" if value is None else str(value)


def in_script(text: str) -> str:
    """JSON that cannot end the script element that it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "comparison"
