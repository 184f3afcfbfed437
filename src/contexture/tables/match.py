"""A new table to the columns that a learner was trained on.

By name; where the training table had no header, by place: the new table has as many columns as that one, or one fewer,
and then the target is the one it lacks. Values never seen in training become missing values, columns that are not there
too, columns that are too many are passed over: each is said.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from contexture.errors import InputError
from contexture.tables.columns import encode_categories, parse_numbers
from contexture.tables.frame import Table, listed, quoted
from contexture.tables.read import read_table
from contexture.tables.schema import TableColumn, TableSchema
from contexture.tables.values import is_missing

__all__ = ["MatchedTable", "match_columns", "read_matching"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatchedTable:
    """The features of new rows in the order and the codes of training, NaN where missing, and what was said of them."""

    x: Float64[np.ndarray, "rows features"]
    lines: Int64[np.ndarray, " rows"]
    findings: tuple[str, ...]


def read_matching(
    path: str | os.PathLike[str], schema: TableSchema, *, delimiter: str | None = None, encoding: str | None = None
) -> Table:
    """Return the table in a file that has a header if the training table had one."""
    return read_table(path, delimiter=delimiter, header=schema.has_header, encoding=encoding)


def match_columns(schema: TableSchema, table: Table) -> MatchedTable:
    """Return the rows of a new table as the features of training.

    Raises InputError if it shares no column with the training table, or holds text where numbers were.
    """
    findings: list[str] = []
    places = _by_name(schema, table, findings) if schema.has_header else _by_place(schema, table)
    columns = [
        _values(table, places[column.name], column, findings)
        if column.name in places
        else np.full(table.num_rows, np.nan)
        for column in schema.features
    ]
    lines = np.asarray(table.lines, dtype=np.int64)
    return MatchedTable(x=np.stack(columns, axis=1), lines=lines, findings=tuple(findings))


def _by_name(schema: TableSchema, table: Table, findings: list[str]) -> Mapping[str, int]:
    places = {name: index for index, name in enumerate(table.names)}
    wanted = [column.name for column in schema.features]
    absent = [name for name in wanted if name not in places]
    extra = [name for name in table.names if name not in {*wanted, *schema.dropped, schema.target.name}]
    if len(absent) == len(wanted):
        first = f"; is {table.unit} 1 a header, as in the training table?" if table.delimiter else ""
        raise InputError(
            f"{table.source} has none of the training table's columns ({listed(list(map(quoted, wanted)))}), but "
            f"{listed(list(map(quoted, table.names)))}{first} Give a table with the same column names."
        )
    for name in absent:
        near = difflib.get_close_matches(name, extra, n=1)
        findings.append(
            f"no column {quoted(name)}: taken as missing" + (f" (is it {quoted(near[0])}?)" if near else "")
        )
    if extra:
        findings.append(f"columns passed over, which training did not have: {listed(list(map(quoted, extra)))}")
    return places


def _by_place(schema: TableSchema, table: Table) -> Mapping[str, int]:
    if table.num_columns not in (schema.num_columns, schema.num_columns - 1):
        raise InputError(
            f"{table.source} has {table.num_columns} columns where the training table, without a header, has "
            f"{schema.num_columns}; give all of them, or all but the target (index {schema.target.index})."
        )
    without_target = table.num_columns < schema.num_columns
    return {
        column.name: column.index - (without_target and column.index > schema.target.index)
        for column in schema.features
    }


def _values(table: Table, index: int, column: TableColumn, findings: list[str]) -> Float64[np.ndarray, " rows"]:
    if column.kind == "numeric":
        return parse_numbers(table, index, form=column.form)
    values = encode_categories(table.cells[index], column.categories)
    unseen = _unseen(table.cells[index], values)
    if unseen:
        findings.append(
            f"column {quoted(table.names[index])}: {len(unseen)} cells hold categories that training did not have "
            f"({listed(sorted(set(map(quoted, unseen))))}), taken as missing"
        )
    return values


def _unseen(cells: Sequence[str], values: Float64[np.ndarray, " rows"]) -> list[str]:
    return [cells[row].strip() for row in np.flatnonzero(np.isnan(values)).tolist() if not is_missing(cells[row])]
