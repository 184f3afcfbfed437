"""Numbers as people read them."""

import math
from collections.abc import Sequence

MISSING = "-"


def number(value: float, *, digits: int = 3) -> str:
    """Three significant digits, no exponent between a thousandth and a million.

    >>> number(0.04567), number(123456.0), number(2.0), number(1.2e-7), number(float("nan"))
    ('0.0457', '123,456', '2.00', '1.2e-07', '-')
    """
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 6:
        return f"{value:.{digits - 1}g}"
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def column(values: Sequence[float], *, digits: int = 3) -> list[str]:
    """Numbers under each other, with the decimals that their median needs; a far larger one goes without.

    >>> column([0.512, 0.0734, 12.3]), column([0.5, 0.61, 2416.5])
    (['0.512', '0.073', '12.300'], ['0.500', '0.610', '2,416'])
    """
    sizes = sorted(abs(v) for v in values if math.isfinite(v) and v != 0)
    if not sizes or max(sizes) >= 1e6 or max(sizes) < 1e-4:
        return [number(v, digits=digits) for v in values]
    middle = sizes[len(sizes) // 2]
    decimals = max(0, digits - 1 - math.floor(math.log10(middle)))
    return [
        MISSING if not math.isfinite(v) else number(v) if abs(v) > 100 * middle else f"{v:,.{decimals}f}"
        for v in values
    ]


def seconds(value: float, *, micro: str = "µs") -> str:
    """A duration in the unit that fits it.

    >>> seconds(0.0000234), seconds(0.0456), seconds(7.0), seconds(5e-8), seconds(float("nan"))
    ('23 µs', '46 ms', '7.0 s', '50 ns', '-')
    """
    if not math.isfinite(value):
        return MISSING
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, micro), (1e-9, "ns"))
    scale, unit = next(((scale, unit) for scale, unit in units if value >= 0.9995 * scale), units[-1])
    return f"{value / scale:.{1 if value / scale < 9.95 else 0}f} {unit}"


def count(value: int) -> str:
    """How many, in thousands and millions above ten thousand.

    >>> count(0), count(9999), count(360_000), count(9_500_000)
    ('0', '9,999', '360 k', '9.5 M')
    """
    if value < 10_000:
        return f"{value:,}"
    return f"{value / 1e3:.0f} k" if value < 999_500 else f"{value / 1e6:.1f} M"


def size(value: int) -> str:
    """Bytes, in the binary unit that fits.

    >>> size(192), size(20_480), size(3 * 2**20)
    ('192 B', '20 KiB', '3.0 MiB')
    """
    if value < 1024:
        return f"{value} B"
    for scale, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= scale:
            return f"{value / scale:.{1 if value / scale < 9.95 else 0}f} {unit}"
    raise AssertionError(value)


def listed(names: Sequence[str], *, last: str = "and") -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
