"""Predictions to a CSV file that appears whole or not at all."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from contexture.errors import InputError
from contexture.store.atomic import write_file

__all__ = ["check_output", "predictions_text", "write_predictions"]


def predictions_text(columns: Mapping[str, Sequence[object]]) -> str:
    r"""Return columns as CSV: a header, then a row each; numbers are written so that they read back exactly.

    >>> predictions_text({"price": [1.5, 2.0], "kind": ["a", 'b"c']})
    'price,kind\n1.5,a\n2.0,"b""c"\n'
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"predictions need columns of one length, but these are {lengths}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_text(value) for value in row] for row in zip(*columns.values(), strict=True))
    return text.getvalue()


def check_output(path: str | os.PathLike[str], *, inputs: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise InputError where a file cannot go: over an input, into a folder that is not there, as Parquet.

    To be called before the work that its content takes.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder; give the path of a file.")
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is not a plain file; give the path of one, or of a new one.")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {target.parent} for {target.name}; make it first.")
    if target.suffix.lower() in (".parquet", ".xlsx"):
        raise InputError(f"predictions are written as CSV, not as {target.suffix}; give {target.with_suffix('.csv')}.")
    for given in inputs:
        if target.exists() and Path(given).exists() and target.samefile(given):
            raise InputError(f"{target} is also an input and would be overwritten; give another path.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InputError(f"{target} may not be written by this user; change the permissions, or give another path.")


def write_predictions(
    path: str | os.PathLike[str],
    columns: Mapping[str, Sequence[object]],
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Write columns of predictions as UTF-8 CSV: the file holds all of it, or is as it was.

    Raises InputError where the path is one of the `inputs`, or cannot be written to.
    """
    check_output(path, inputs=inputs)
    try:
        write_file(Path(path).resolve(), predictions_text(columns).encode())
    except OSError as fault:
        raise InputError(f"{path} cannot be written: {fault.strerror or fault}.") from None


def _text(value: object) -> str:
    """Return a value's text; NumPy's scalars are first made Python's, whose text is the shortest that reads back."""
    item = getattr(value, "item", None)
    plain = item() if callable(item) else value
    return "" if plain is None else str(plain)
