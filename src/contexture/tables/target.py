"""The target of a table: a class or a number, and its values.

It is a class if its cells are text, or whole numbers of at most 10 different values; else it is a number. Classes are
sorted, whole numbers by value, and named as they are written.
"""

import numpy as np
from jaxtyping import Shaped

from contexture.errors import InputError
from contexture.tables.columns import ColumnKind, InferredColumn, infer_column
from contexture.tables.frame import Table, quoted
from contexture.tables.schema import TableColumn, TargetKind
from contexture.tables.values import DATE_FORMS

__all__ = ["infer_target"]

_MOST_INTEGER_CLASSES = 10


def infer_target(
    table: Table, index: int, *, kind: ColumnKind | None = None, task: TargetKind | None = None
) -> tuple[TableColumn, Shaped[np.ndarray, " rows"], str]:
    """Return the target's column, its values (float64 numbers or int64 classes), and what a user should know.

    Every row has a target. Raises InputError for text among numbers, for one value or one class throughout, and for as
    many classes as rows.
    """
    if task not in (None, "regression", "classification"):
        raise InputError(f"a target is for regression or for classification, not for {task!r}.")
    if kind is None and task == "regression":
        kind = "numeric"
    column = infer_column(table, index, kind=kind)
    if np.all(column.values == column.values[0]):
        what = "one class" if column.kind == "categorical" or task == "classification" else "constant"
        raise InputError(
            f"{table.place(index)}: the target is {what}, {quoted(table.cells[index][0].strip())} in all "
            f"{table.num_rows} rows ({table.unit}s {table.lines[0]} to {table.lines[-1]}); choose another --target."
        )
    if task == "regression" or (task is None and not _is_class(column, asked=kind)):
        return _column(column, "numeric"), column.values, column.note
    return _classes(table, column, asked=task is not None or kind is not None)


def _is_class(column: InferredColumn, *, asked: ColumnKind | None) -> bool:
    if column.kind == "categorical":
        return True
    if asked == "numeric" or column.form in DATE_FORMS:
        return False
    whole = np.all(column.values == np.floor(column.values))
    return bool(whole) and np.unique(column.values).size <= _MOST_INTEGER_CLASSES


def _classes(
    table: Table, column: InferredColumn, *, asked: bool
) -> tuple[TableColumn, Shaped[np.ndarray, " rows"], str]:
    values, first, codes = np.unique(column.values, return_index=True, return_inverse=True)
    if values.size == table.num_rows:
        raise InputError(
            f"{table.place(column.index)}: the target has a class of its own in every row ({table.unit}s "
            f"{table.lines[0]} to {table.lines[-1]}); choose another --target."
        )
    names = column.categories or tuple(table.cells[column.index][row].strip() for row in first)
    note = column.note
    if column.kind == "numeric" and not asked:
        note = (
            f"the target is whole numbers with {values.size} different values: taken as classes (or --type regression)"
        )
    if lone := [name for name, count in zip(names, np.bincount(codes), strict=True) if count == 1]:
        some = "1 class of the target has" if len(lone) == 1 else f"{len(lone)} classes of the target have"
        note += f"{'; ' if note else ''}{some} a single row (such as {quoted(lone[0])})"
    return _column(column, "categorical", names), codes.astype(np.int64), note


def _column(column: InferredColumn, kind: ColumnKind, categories: tuple[str, ...] = ()) -> TableColumn:
    return TableColumn(name=column.name, index=column.index, kind=kind, form=column.form, categories=categories)
