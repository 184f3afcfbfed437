"""A canonical order of a table's rows, columns and classes, computed from their content alone.

Whoever shuffles the rows or columns, or renames the classes, gets the same canonical table, and with it the same
predictions to the last bit. Ties (identical rows; columns with the same cells and targets; classes with the same count
and the same column means) are left as they stand.

    classes   by count, then by the sorted means of their columns
    columns   categorical last, then by their cells in ascending order, then by the targets in that order
    rows      by their cells, column after column, then by the target

Legend: N = rows, D = columns, C = classes.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class TableOrder(NamedTuple):
    """Indices into the table as given: rows[i] is the row that stands i-th, and so for columns and classes."""

    rows: Integers
    columns: Integers
    classes: Integers


def class_order(x: Floats, y: Integers, num_classes: int) -> Integers:
    """The classes in canonical order, rarer ones first.

    >>> class_order(np.array([[1.0], [2.0], [3.0]]), np.array([1, 1, 0]), 2).tolist()
    [0, 1]
    """
    keys = []
    for code in range(num_classes):
        cells = np.sort(np.nan_to_num(x[y == code]), axis=0)
        means = np.sort(cells.sum(axis=0)).tolist() if len(cells) else []
        keys.append((len(cells), means, code))
    return np.array([code for _, _, code in sorted(keys)], dtype=np.int64)


def column_order(x: Floats, y: Floats, categorical: Flags) -> Integers:
    """The columns in canonical order; missing cells count as infinite."""
    keys = []
    filled = np.where(np.isnan(x), np.inf, x)
    for column in range(x.shape[1]):
        order = np.lexsort((y, filled[:, column]))
        keys.append((bool(categorical[column]), filled[order, column].tolist(), y[order].tolist(), column))
    return np.array([key[-1] for key in sorted(keys)], dtype=np.int64)


def row_order(x: Floats, y: Floats) -> Integers:
    """The rows in canonical order, given columns in canonical order."""
    filled = np.where(np.isnan(x), np.inf, x)
    return np.lexsort((y, *filled.T[::-1])).astype(np.int64)


def canonical_order(x: Floats, y: Floats, categorical: Flags, num_classes: int) -> TableOrder:
    """The canonical order of a table; `num_classes` is 0 where the target is a number."""
    classes = class_order(x, y.astype(np.int64), num_classes)
    place = np.argsort(classes)
    target = place[y.astype(np.int64)].astype(np.float64) if num_classes else y
    columns = column_order(x, target, categorical)
    return TableOrder(rows=row_order(x[:, columns], target), columns=columns, classes=classes)
