"""Axes that every figure shares: which scale shows the data, ticks that people can read, quiet lines."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from contexture.reports.numbers import seconds
from contexture.reports.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_RATIO = 8
"""Errors whose largest is more than this many times their smallest are drawn on a logarithmic axis."""


def finite(values: Sequence[float]) -> list[float]:
    """Those that are numbers."""
    return [v for v in values if math.isfinite(v)]


def use_log(values: Sequence[float]) -> bool:
    """True if all are positive and they spread over so much that a linear axis would hide the small ones."""
    known = finite(values)
    return bool(known) and min(known) > 0 and max(known) / min(known) > LOG_RATIO


def even_in_log(sizes: Sequence[int]) -> bool:
    """True if the sizes are spaced more evenly by ratio than by difference, as 20, 50, 100, 200 are."""
    if len(sizes) < 3 or min(sizes) <= 0:
        return False
    logs = [math.log(n) for n in sizes]
    return _unevenness(logs) < _unevenness([float(n) for n in sizes])


def _unevenness(places: Sequence[float]) -> float:
    gaps = [b - a for a, b in pairwise(places)]
    return max(gaps) / min(gaps)


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers 1, 2, 5 times powers of ten within low..high; powers of ten alone where there are many.

    >>> log_ticks(0.15, 6.0)
    [0.2, 0.5, 1.0, 2.0, 5.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 500 else (1,)
    every = 1 if len(powers) < 9 else math.ceil(len(powers) / 8)
    ticks = [float(f"{step}e{power}") for power in powers if power % every == 0 for step in steps]
    return [tick for tick in ticks if low <= tick <= high]


def tick_sizes(sizes: Sequence[int], *, most: int) -> list[int]:
    """The context sizes themselves as ticks; where they are too many, the multiples of a round step among them.

    >>> tick_sizes(range(25), most=7)
    [0, 4, 8, 12, 16, 20, 24]
    >>> tick_sizes([10, 20, 50, 100, 200], most=7)
    [10, 20, 50, 100, 200]
    """
    if len(sizes) <= most:
        return list(sizes)
    steps = (digit * 10**power for power in range(9) for digit in (1, 2, 4, 5))
    few = ([n for n in sizes if n % step == 0] for step in steps)
    found = next(ticks for ticks in few if len(ticks) <= most)
    return found if len(found) > 2 else list(sizes)[:: math.ceil(len(sizes) / most)]


def quiet(axes: "Axes") -> None:
    """Horizontal grid lines and a base line; everything else is left out."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT["muted"])
    axes.grid(axis="y", color=LIGHT["grid"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(colors=LIGHT["muted"], labelcolor=LIGHT["muted"], length=0, which="both")
    axes.tick_params(axis="x", length=4, which="major")
    axes.minorticks_off()


def number_y(axes: "Axes", low: float, high: float, *, log: bool) -> None:
    """Set the y axis to low..high with plain numbers on it."""
    if log:
        axes.set_yscale("log")
        ticks = log_ticks(low, high)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.10g}")
    axes.set_ylim(low, high)
    axes.minorticks_off()


def log_x(axes: "Axes") -> None:
    """A logarithmic x axis with plain numbers on it, where matplotlib would write powers as formulas."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()


def number_sizes(axes: "Axes", sizes: Sequence[int], *, most: int) -> None:
    """Put the context sizes under the x axis."""
    if even_in_log(sizes):
        axes.set_xscale("log")
    ticks = tick_sizes(sizes, most=most)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


FEWEST_TICKS = 3
"""Powers of ten that are enough to read a logarithmic axis of seconds by."""


def number_seconds(axes: "Axes", low: float, high: float) -> None:
    """Set the x axis to durations from low to high, a tick at every power of ten (at 1, 2, 5 where those are few)."""
    axes.set_xscale("log")
    every = log_ticks(low, high)
    tens = [tick for tick in every if f"{tick:e}".startswith("1.")]
    ticks = tens if len(tens) >= FEWEST_TICKS else every
    axes.set_xticks(ticks, [seconds(tick).replace(".0 ", " ") for tick in ticks])
    axes.set_xlim(low, high)
    axes.minorticks_off()


def padded(values: Sequence[float], *, log: bool, share: float = 0.06) -> tuple[float, float]:
    """Ends a little beyond the smallest and largest value; from 0 where that is near on a linear axis."""
    known = finite(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    if log:
        factor = (high / low) ** share if high > low else 1.5
        return low / factor, high * factor
    if low == high == 0:
        return -0.03, 1.0
    margin = (high - low) * share or abs(high) * 0.1
    if 0 <= low < 0.35 * high:
        return (-0.03 * high if low < 0.01 * high else 0.0), high + margin
    return low - margin, high + margin
