"""A Parquet file to a `Table`, through pyarrow, where that is installed.

Every value becomes the text that a CSV file would hold: numbers as Python writes them (so that they read back to the
same double), dates and times in ISO form, nulls as nothing. Columns that the file declares as text stay text, even
where every cell is made of digits.
"""

import io
import math
from typing import Any

from contexture.errors import InputError
from contexture.tables.frame import Table, ordinal, quoted, unique_names

__all__ = ["is_parquet", "parse_parquet"]

_MAGIC = b"PAR1"


def is_parquet(data: bytes) -> bool:
    """Return whether a file begins as a Parquet file does."""
    return data.startswith(_MAGIC)


def parse_parquet(data: bytes, *, source: str) -> Table:
    """Return the table in the bytes of a Parquet file.

    Raises InputError where pyarrow is missing, the file is damaged, a column is neither numbers nor text nor dates, or
    two columns have one name.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            f"{source} is a Parquet file, which pyarrow reads: pip install 'contexture[parquet]', or give a CSV file."
        ) from None
    try:
        frame = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read()
    except (pyarrow.ArrowException, OSError) as fault:
        reason = str(fault).split("\n")[0].rstrip(".")
        raise InputError(f"{source} is a damaged Parquet file ({reason}); write it again.") from None
    if not frame.num_rows or not frame.num_columns:
        raise InputError(f"{source} has {frame.num_rows} rows and {frame.num_columns} columns; give a file with rows.")
    names = unique_names(frame.column_names, where=source)
    columns = []
    for index, name in enumerate(names):
        column = frame.column(index)
        kind = _value_type(column.type)
        if not _is_plain(kind):
            raise InputError(
                f"{source}, column {quoted(name)} ({ordinal(index + 1)} of {len(names)}) holds {kind}; leave it out, "
                f"or write it as numbers, text or dates."
            )
        columns.append(tuple(map(_text, column.to_pylist())))
    texts = frozenset(index for index in range(len(names)) if _is_text(_value_type(frame.column(index).type)))
    return Table(
        source=source,
        names=names,
        cells=tuple(columns),
        lines=range(1, frame.num_rows + 1),
        has_header=True,
        delimiter=None,
        unit="row",
        text_columns=texts,
        findings=("Parquet",),
    )


def _value_type(kind: Any) -> Any:
    import pyarrow.types

    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_date, types.is_timestamp)
    return _is_text(kind) or bool(types.is_null(kind)) or any(test(kind) for test in tests)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
