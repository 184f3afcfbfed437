"""Small pictures that stand in lines and cells: drawn by hand as SVG, coloured by the page's style sheet."""

import math
from collections.abc import Callable, Iterable, Sequence

from markupsafe import Markup

from contexture.catalogue.measures import Measure, Value
from contexture.claims.harness import Line, Result, Side

WIDTH, HEIGHT, EDGE = 128.0, 40.0, 4.0
MOST_POINTS = 48
_FLOOR = 1e-18


def thumbnail(result: Result) -> Markup:
    """A claim's picture small enough for a list: its lines, or its number with reference, control and threshold."""
    inside = _lines(result) if result.lines else _numbers(result)
    return Markup(
        f'<svg class="thumbnail" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="{WIDTH:g}" height="{HEIGHT:g}" '
        f'aria-hidden="true" focusable="false">{inside}</svg>'
    )


class Scale:
    """From numbers to places between two ends, evenly or by their logarithms."""

    def __init__(self, values: Iterable[float], start: float, end: float, *, log: bool) -> None:
        self.log = log
        known = [self._step(value) for value in values if math.isfinite(value)]
        self.low, self.high = min(known, default=0.0), max(known, default=1.0)
        self.start, self.end = start, end

    def _step(self, value: float) -> float:
        return math.log(max(value, _FLOOR)) if self.log else value

    def __call__(self, value: float) -> float:
        """Where a number stands."""
        share = (self._step(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def _lines(result: Result) -> str:
    axes = result.axes or {}
    lines = list(result.lines.values())
    rule = [result.threshold] if axes.get("rule") else []
    x = Scale((v for line in lines for v in line["x"]), EDGE, WIDTH - EDGE, log=bool(axes.get("log_x")))
    y = Scale([v for line in lines for v in line["y"]] + rule, HEIGHT - EDGE, EDGE, log=bool(axes.get("log_y")))
    drawn = [f'<path class="rule" d="M0 {y(at):.1f}H{WIDTH:g}"/>' for at in rule]
    for index in reversed(range(len(lines))):
        points = [f"{x(a):.1f},{y(b):.1f}" for a, b in _thinned(lines[index])]
        drawn.append(f'<polyline class="line hue-{index % 7 + 1}" points="{" ".join(points)}"/>')
    return "".join(drawn)


def _thinned(line: Line) -> list[tuple[float, float]]:
    points = list(zip(line["x"], line["y"], strict=True))
    step = math.ceil(len(points) / MOST_POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def _numbers(result: Result) -> str:
    sides: tuple[tuple[Side | Result, int], ...] = ((result.control, 2), (result.reference, 3), (result, 1))
    values = [result.threshold, *(v for side, _ in sides for v in (side.low, side.value, side.high))]
    x = Scale(values, EDGE + 2, WIDTH - EDGE - 2, log=spread(values))
    drawn = [f'<path class="rule" d="M{x(result.threshold):.1f} 2V{HEIGHT - 2:g}"/>']
    for place, (side, hue) in enumerate(sides):
        y = HEIGHT * (3 - place) / 4
        drawn.append(
            f'<path class="line hue-{hue}" d="M{x(side.low):.1f} {y:g}H{x(side.high):.1f}"/>'
            f'<circle class="dot hue-{hue}" cx="{x(side.value):.1f}" cy="{y:g}" r="2.6"/>'
        )
    return "".join(drawn)


def spread(values: Sequence[float]) -> bool:
    """Whether positive numbers differ so much that only their logarithms show it."""
    return min(values) > 0 and max(values) / min(values) > 20


def scale_of(measure: Measure, names: Iterable[str]) -> Scale:
    """The axis, in hundredths of a cell's width, on which the named values of a measure are drawn."""
    held = [measure.values[name] for name in names if name in measure.values]
    ends = [end for v in held for end in (v.value, v.low, v.high) if end is not None]
    base = [*measure.rules.values()] if measure.log else [0.0, *measure.rules.values()]
    return Scale([*ends, *base], 2, 98, log=measure.log)


def cell(measure: Measure, value: Value, scale: Scale, *, tall: bool = False) -> Markup:
    """A number as a dot on its axis, with its interval and the levels to compare with."""
    at = scale(value.value)
    rules = "".join(
        f'<line class="rule" x1="{scale(level):.1f}%" x2="{scale(level):.1f}%" y1="0" y2="100%"/>'
        for level in measure.rules.values()
    )
    whisker = ""
    if value.low is not None and value.high is not None:
        whisker = (
            f'<line class="whisker" x1="{scale(value.low):.1f}%" x2="{scale(value.high):.1f}%" y1="50%" y2="50%"/>'
        )
    return Markup(
        f'<svg class="cell" height="{18 if tall else 12}" aria-hidden="true" focusable="false">{rules}'
        f'<line class="stem" x1="0" x2="{at:.1f}%" y1="50%" y2="50%"/>{whisker}'
        f'<circle class="dot hue-1" cx="{at:.1f}%" cy="50%" r="{4 if tall else 3}"/></svg>'
    )


def ticks(measure: Measure, scale: Scale) -> tuple[tuple[float, str], ...]:
    """Places on the axis of a measure, in hundredths of its width, with their numbers."""
    if scale.log:
        low, high = math.exp(scale.low), math.exp(scale.high)
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        base = 2 if measure.unit == "bytes" else 10
        if base == 2:
            exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
            step = max(1, math.ceil(len(exponents) / 5))
            at = [2.0**e for e in exponents if e % step == 0]
        else:
            at = [10.0**e for e in range(first, last + 1)] or [low, high]
    else:
        at = [scale.low + (scale.high - scale.low) * share / 4 for share in range(5)]
    text: Callable[[float], str] = (lambda v: f"{100 * v:.0f} %") if measure.unit == "share" else measure.text
    return tuple((scale(value), text(value)) for value in at)


def parts_of_whole(parts: Sequence[tuple[str, int]]) -> Markup:
    """Counts as one bar, a piece for each in the style of its name."""
    whole = sum(count for _, count in parts) or 1
    begun, drawn = 0.0, []
    for name, count in parts:
        share = 100 * count / whole
        drawn.append(f'<rect class="part {name}" x="{begun:.2f}%" width="{share:.2f}%" height="100%"/>')
        begun += share
    return Markup(f'<svg class="bar" height="8" aria-hidden="true" focusable="false">{"".join(drawn)}</svg>')
