"""What one cell says: nothing, a number, a date, or text.

A number is what Python's `float` reads, without underscores: `3`, `-1.5e3`, `.5`. With a decimal comma, one comma takes
the place of the point: `1,5`. A date or a time is the number of days since 1970-01-01 00:00 UTC, with the time of day
as a fraction: `1970-01-02 12:00` is 1.5. A cell is missing if it is empty or one of the marks in `MISSING`, in any case
and with any space around it.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from types import MappingProxyType

__all__ = ["DATE_FORMS", "FORMS", "MISSING", "NUMBER_FORMS", "date_words", "is_missing", "looks_typed"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})

_EPOCH = date(1970, 1, 1).toordinal()
_TIME = r"(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2}(?:[.,]\d{1,9})?))?\s*(Z|[+-]\d{2}:?\d{2})?)?"


def is_missing(cell: str) -> bool:
    """Return whether a cell says that there is no value.

    >>> [is_missing(cell) for cell in ("", " NA ", "?", "0")]
    [True, True, True, False]
    """
    return cell.strip().lower() in MISSING


def _point(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return None if "_" in cell or math.isnan(value) else value


def _comma(cell: str) -> float | None:
    if "." in cell or cell.count(",") > 1 or cell.rstrip().endswith(","):
        return None
    return _point(cell.replace(",", "."))


def _dated(pattern: str, order: str) -> Callable[[str], float | None]:
    """Return a parser; `order` says which of year, month, day the groups of the pattern hold."""
    match = re.compile(pattern + (_TIME if "d" in order else ""), re.ASCII).fullmatch

    def parse(cell: str) -> float | None:
        found = match(cell.strip())
        if found is None:
            return None
        parts = dict(zip(order, found.groups(), strict=False))
        try:
            days = date(int(parts["y"]), int(parts["m"]), int(parts.get("d", 1))).toordinal() - _EPOCH
        except ValueError:
            return None
        clock = _seconds(*found.groups()[-4:]) if "d" in order else 0.0
        return None if clock is None else days + clock / 86400

    return parse


def _seconds(hours: str | None, minutes: str | None, seconds: str | None, zone: str | None) -> float | None:
    if hours is None or minutes is None:
        return 0.0
    second = float((seconds or "0").replace(",", "."))
    if int(hours) > 23 or int(minutes) > 59 or second >= 61:
        return None
    shift = 0
    if zone and zone != "Z":
        shift = (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60) * (-1 if zone[0] == "-" else 1)
    return int(hours) * 3600 + int(minutes) * 60 + second - shift


Parser = Callable[[str], float | None]
NUMBER_FORMS: Mapping[str, Parser] = MappingProxyType({"number": _point, "decimal comma": _comma})
DATE_FORMS: Mapping[str, Parser] = MappingProxyType(
    {
        "year-month-day": _dated(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", "y md"),
        "year-month": _dated(r"(\d{4})-(\d{2})", "ym"),
        "day.month.year": _dated(r"(\d{1,2})(\.)(\d{1,2})\2(\d{4})", "d my"),
        "month/day/year": _dated(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4})", "m dy"),
        "day/month/year": _dated(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4})", "d my"),
    }
)
FORMS: Mapping[str, Parser] = MappingProxyType({**NUMBER_FORMS, **DATE_FORMS})


def date_words(form: str) -> str:
    """Return how a date form is said in a finding."""
    return f"dates ({form}), as days since 1970-01-01"


def looks_typed(cell: str) -> bool:
    """Return whether a cell is missing, a number in either form, or a date.

    >>> [looks_typed(cell) for cell in ("1,5", "2020-02-29", "2021-02-29", "x")]
    [True, True, False, False]
    """
    if is_missing(cell) or _point(cell) is not None or _comma(cell) is not None:
        return True
    return cell.strip()[:1].isdigit() and any(parse(cell) is not None for parse in DATE_FORMS.values())
