"""What a column holds, inferred from its text: numbers, dates as numbers, or categories.

A column is numeric if every cell that is not missing parses in one form (a number, a number with a decimal comma where
commas do not separate cells, or one form of date). If at least 95 % of them parse and some do not, those are taken for
mistakes: InputError. Else the column is categorical, and its categories are the distinct texts, sorted.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from contexture.errors import InputError
from contexture.tables.frame import Table, quoted
from contexture.tables.values import DATE_FORMS, FORMS, NUMBER_FORMS, Parser, date_words, is_missing

__all__ = ["ColumnKind", "InferredColumn", "encode_categories", "infer_column", "parse_numbers"]

ColumnKind = Literal["numeric", "categorical"]

_NUMERIC_SHARE = 0.95
_WORTH_SAYING_SHARE = 0.5
_LARGEST_EXACT = 2.0**53


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferredColumn:
    """The values of a column: numbers, or codes into `categories`; NaN where missing.

    `form` names the entry of `contexture.tables.values.FORMS` by which numbers were read. `note` is what a user should
    know about the inference, or nothing.
    """

    name: str
    index: int
    kind: ColumnKind
    values: Float64[np.ndarray, " rows"]
    form: str = "number"
    categories: tuple[str, ...] = ()
    note: str = ""

    @property
    def num_missing(self) -> int:
        """The number of cells without a value."""
        return int(np.isnan(self.values).sum())


def infer_column(table: Table, index: int, *, kind: ColumnKind | None = None) -> InferredColumn:
    """Return what a column holds, or takes it as the kind that is given.

    Raises InputError, naming the line, for text among numbers, for infinity and for what no double holds.

    >>> table = Table.from_columns(["when"], [["1970-01-02", "?", "1970-01-03 12:00"]])
    >>> column = infer_column(table, 0)
    >>> column.form, column.values.tolist()
    ('year-month-day', [1.0, nan, 2.5])
    """
    if kind is None and index in table.text_columns:
        kind = "categorical"
    note = ""
    if kind != "categorical":
        values = _plain_numbers(table.cells[index])
        if values is not None:
            return _numeric(table, index, values, "number")
        form, parsed, num_parsed, num_present = _best_form(table, index)
        share = num_parsed / num_present if num_present else 1.0
        if kind == "numeric" or share >= _NUMERIC_SHARE:
            return _numeric(table, index, _values(table, index, parsed, form), form)
        if share >= _WORTH_SAYING_SHARE:
            stray = next(row for row, cell in enumerate(table.cells[index]) if _is_stray(cell, parsed))
            note = (
                f"column {quoted(table.names[index])} taken as categories: {num_parsed} of its {num_present} cells are "
                f"{_words(form)}, but {quoted(table.cells[index][stray])} on {table.unit} {table.lines[stray]} is not"
            )
    present = {cell.strip() for cell in set(table.cells[index]) if not is_missing(cell)}
    categories = tuple(sorted(present, key=_natural))
    values = encode_categories(table.cells[index], categories)
    return InferredColumn(
        name=table.names[index], index=index, kind="categorical", values=values, categories=categories, note=note
    )


def parse_numbers(table: Table, index: int, *, form: str) -> Float64[np.ndarray, " rows"]:
    """Return the numbers of a column that must hold them, in the form of dates that it had, or in any form of numbers.

    Raises InputError, naming the line, for anything else.
    """
    values = None if form in DATE_FORMS else _plain_numbers(table.cells[index])
    if values is not None:
        return _numeric(table, index, values, "number").values
    forms = {form: DATE_FORMS[form]} if form in DATE_FORMS else NUMBER_FORMS
    found, parsed, _, _ = _best_form(table, index, forms)
    return _numeric(table, index, _values(table, index, parsed, found), found).values


def encode_categories(cells: Sequence[str], categories: Sequence[str]) -> Float64[np.ndarray, " rows"]:
    """Return the code of every cell's category; NaN where the cell is missing or its category is not listed.

    >>> encode_categories(["b", " a", "z", "?"], ["a", "b"]).tolist()
    [1.0, 0.0, nan, nan]
    """
    codes = {category: float(code) for code, category in enumerate(categories)}
    known = {cell: np.nan if is_missing(cell) else codes.get(cell.strip(), np.nan) for cell in set(cells)}
    return np.fromiter(map(known.__getitem__, cells), dtype=np.float64, count=len(cells))


def _plain_numbers(cells: Sequence[str]) -> Float64[np.ndarray, " rows"] | None:
    """Return the numbers of a column in which every cell is a plain one: the quick way, for most columns."""
    try:
        values = np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
    except ValueError:
        return None
    if np.isnan(values).any() or "_" in "".join(cells):
        return None
    return values


def _best_form(table: Table, index: int, forms: Mapping[str, Parser] = FORMS) -> tuple[str, dict[str, float], int, int]:
    """Return the form that reads most cells, what it reads, how many it reads, and how many are not missing."""
    present = {cell: count for cell, count in Counter(table.cells[index]).items() if not is_missing(cell)}
    num_present = sum(present.values())
    best: tuple[str, dict[str, float], int, int] | None = None
    for form, parse in forms.items():
        if form == "decimal comma" and table.delimiter == ",":
            continue
        parsed = {cell: value for cell in present if (value := parse(cell)) is not None}
        num_parsed = sum(present[cell] for cell in parsed)
        if best is None or num_parsed > best[2]:
            best = form, parsed, num_parsed, num_present
        if num_parsed == num_present:
            break
    assert best is not None
    return best


def _values(table: Table, index: int, parsed: Mapping[str, float], form: str) -> Float64[np.ndarray, " rows"]:
    """Return the parsed numbers, NaN where missing; raises InputError for the first cell that is neither."""
    cells = table.cells[index]
    stray = next((row for row, cell in enumerate(cells) if _is_stray(cell, parsed)), None)
    if stray is not None:
        header = "" if stray or table.has_header else "; if this line is a header, say so with --header"
        raise InputError(
            f"{table.place(index, stray)}: found {quoted(cells[stray])} where the other cells are {_words(form)}; "
            f"correct it, leave the cell empty if the value is missing, or pass --categorical "
            f"{shlex.quote(table.names[index])} to take the column as categories{header}."
        )
    return np.array([parsed.get(cell, np.nan) for cell in cells], dtype=np.float64)


def _numeric(table: Table, index: int, values: Float64[np.ndarray, " rows"], form: str) -> InferredColumn:
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        cell = table.cells[index][infinite[0]]
        what = "infinity" if "inf" in cell.lower() else "too large for a double (at most 1.8e308)"
        raise InputError(
            f"{table.place(index, int(infinite[0]))}: {quoted(cell)} is {what}; give a finite number, or leave the "
            f"cell empty if the value is missing."
        )
    name = quoted(table.names[index])
    note = ""
    if form in DATE_FORMS:
        either = form == "month/day/year" and all(
            DATE_FORMS["day/month/year"](cell) is not None for cell in table.cells[index] if not is_missing(cell)
        )
        unsure = "; the day could also come first: write dates as 2020-12-31 to be sure" if either else ""
        note = f"column {name} holds {date_words(form)}{unsure}"
    elif form == "decimal comma":
        note = f"column {name} holds numbers with a decimal comma"
    elif np.any(np.abs(values) > _LARGEST_EXACT) and _has_long_integer(table.cells[index]):
        note = f"column {name} holds whole numbers beyond 2^53, rounded to doubles"
    return InferredColumn(name=table.names[index], index=index, kind="numeric", values=values, form=form, note=note)


def _has_long_integer(cells: Sequence[str]) -> bool:
    return any(len(cell) > 15 and cell.strip().lstrip("+-").isdigit() for cell in cells)


def _is_stray(cell: str, parsed: Mapping[str, float]) -> bool:
    return cell not in parsed and not is_missing(cell)


def _words(form: str) -> str:
    return {"number": "numbers", "decimal comma": "numbers with a decimal comma"}.get(form, f"dates ({form})")


def _natural(category: str) -> tuple[float, str]:
    value = NUMBER_FORMS["number"](category)
    return (np.inf if value is None else value, category)
