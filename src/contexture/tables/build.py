"""A table and the name of its target to a `Dataset`.

Columns that cannot help are left out, and said: those without any value, those with one value throughout, and text that
differs in every row (an identifier), unless they are named categorical or numeric.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from contexture.errors import InputError
from contexture.tables.columns import ColumnKind, InferredColumn, infer_column
from contexture.tables.dataset import Dataset
from contexture.tables.frame import Table, listed, quoted
from contexture.tables.read import read_table
from contexture.tables.schema import TableColumn, TableSchema, TargetKind
from contexture.tables.target import infer_target
from contexture.tables.values import is_missing

__all__ = ["read_dataset", "table_dataset"]

_FEWEST_ROWS = 10


def read_dataset(
    path: str | os.PathLike[str],
    *,
    target: str | int | None,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    categorical: Iterable[str | int] = (),
    numeric: Iterable[str | int] = (),
    task: TargetKind | None = None,
    drop_missing_target: bool = False,
    min_rows: int = _FEWEST_ROWS,
) -> Dataset:
    """Return the rows of a CSV or Parquet file with one of its columns as the target; see `table_dataset`."""
    return table_dataset(
        read_table(path, delimiter=delimiter, header=header, encoding=encoding),
        target=target,
        categorical=categorical,
        numeric=numeric,
        task=task,
        drop_missing_target=drop_missing_target,
        min_rows=min_rows,
    )


def table_dataset(
    table: Table,
    *,
    target: str | int | None,
    categorical: Iterable[str | int] = (),
    numeric: Iterable[str | int] = (),
    task: TargetKind | None = None,
    drop_missing_target: bool = False,
    min_rows: int = _FEWEST_ROWS,
) -> Dataset:
    """Return a table's rows with one of its columns as the target.

    A column is given by name or by index (from 0, or from the end: -1 is the last). `categorical`, `numeric` and `task`
    override what would be inferred. Raises InputError, naming line and column, for a target that is not there, missing
    in a row (unless `drop_missing_target`), infinite or the same throughout, and for text among numbers.

    >>> table = Table.from_columns(["x", "y"], [[str(i) for i in range(12)], ["no", "yes"] * 6])
    >>> data = table_dataset(table, target="y")
    >>> data.schema.task, data.classes, data.y[:3].tolist()
    ('classification', ('no', 'yes'), [0, 1, 0])
    """
    if target is None:
        raise InputError(
            f"{table.source}: say which column to predict with --target; its columns are "
            f"{listed([quoted(name) for name in table.names])} (-1 is the last)."
        )
    goal = table.index(target)
    kinds = _asked_kinds(table, categorical, numeric)
    table, dropped_rows = _with_target(table, goal, drop_missing_target)
    if table.num_rows < min_rows:
        raise InputError(
            f"{table.source} has {table.num_rows} rows with a target; at least {min_rows} are needed: give more rows."
        )
    target_column, y, target_note = infer_target(table, goal, kind=kinds.get(goal), task=task)
    kept: list[InferredColumn] = []
    left_out: dict[str, list[str]] = {}
    for index in range(table.num_columns):
        if index == goal:
            continue
        column = infer_column(table, index, kind=kinds.get(index))
        reason = _useless(column, asked=index in kinds)
        if reason:
            left_out.setdefault(reason, []).append(column.name)
        else:
            kept.append(column)
    if not kept:
        raise InputError(f"{table.source} has no column besides the target {quoted(table.names[goal])} that varies.")
    findings = [*table.findings, target_note, dropped_rows, *(column.note for column in kept)]
    findings += [f"left out, {reason}: {listed(list(map(quoted, names)))}" for reason, names in left_out.items()]
    return Dataset(
        schema=TableSchema(
            features=tuple(
                TableColumn(name=c.name, index=c.index, kind=c.kind, form=c.form, categories=c.categories) for c in kept
            ),
            target=target_column,
            has_header=table.has_header,
            num_columns=table.num_columns,
            dropped=tuple(name for names in left_out.values() for name in names),
        ),
        x=np.stack([column.values for column in kept], axis=1),
        y=y,
        source=table.source,
        lines=np.asarray(table.lines, dtype=np.int64),
        findings=tuple(finding for finding in findings if finding),
    )


def _asked_kinds(table: Table, categorical: Iterable[str | int], numeric: Iterable[str | int]) -> dict[int, ColumnKind]:
    kinds: dict[int, ColumnKind] = {}
    asked: tuple[tuple[ColumnKind, Iterable[str | int]], ...] = (("categorical", categorical), ("numeric", numeric))
    for kind, columns in asked:
        for column in [columns] if isinstance(columns, str) else columns:
            index = table.index(column, option=f"--{kind}")
            if kinds.setdefault(index, kind) != kind:
                raise InputError(f"{table.place(index)} is named both --categorical and --numeric; take one away.")
    return kinds


def _with_target(table: Table, goal: int, drop: bool) -> tuple[Table, str]:
    """Return the table's rows that have a target, and what was left out, if anything."""
    cells = table.cells[goal]
    missing = [row for row, cell in enumerate(cells) if is_missing(cell)]
    if not missing:
        return table, ""
    name = quoted(table.names[goal])
    if len(missing) == len(cells):
        raise InputError(f"{table.place(goal)}: the target is missing in every row; choose another --target.")
    if not drop:
        more = f", and in {len(missing) - 1} more of {len(cells)} rows" if len(missing) > 1 else ""
        raise InputError(
            f"{table.place(goal, missing[0])}: the target is missing here ({quoted(cells[missing[0]])}){more}; fill it "
            f"in, or pass --drop-missing-target to leave such rows out."
        )
    gone = set(missing)
    kept = [row for row in range(len(cells)) if row not in gone]
    table = replace(
        table,
        cells=tuple(tuple(column[row] for row in kept) for column in table.cells),
        lines=[table.lines[row] for row in kept],
    )
    return table, f"{len(missing)} rows left out, in which the target {name} is missing"


def _useless(column: InferredColumn, *, asked: bool) -> str:
    """Return why a column cannot help, or nothing."""
    present = column.values[~np.isnan(column.values)]
    if not present.size:
        return "without any value"
    if present.size == column.values.size and np.all(present == present[0]):
        return "one value in every row"
    if column.kind == "categorical" and not asked and len(column.categories) == present.size:
        return "a different text in every row (name it --categorical to keep it)"
    return ""
