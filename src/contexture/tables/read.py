r"""A CSV file, or a Parquet file, to a `Table`: every cell exactly as written, every fault with its line and column.

Fields may stand in double quotes (a quote inside is doubled; separators and line ends inside belong to the cell), lines
end in `\n`, `\r\n` or `\r`, lines with nothing on them are passed over. Names are the header's, spaces around them
removed; a column without a name is called by its index: `c0`, `c1`, ...
"""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from contexture.errors import InputError
from contexture.tables.decode import decode
from contexture.tables.faults import check_widths, damaged_cell, quote_fault
from contexture.tables.frame import Table, unique_names
from contexture.tables.parquet import is_parquet, parse_parquet
from contexture.tables.sniff import (
    named_separator,
    records,
    separator_words,
    sniff_header,
    sniff_separator,
    spaces_before_quotes,
    without_trailing_space,
)

__all__ = ["parse_table", "read_table"]

_JOINERS = "#:;|/&~"


def read_table(
    path: str | os.PathLike[str],
    *,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
) -> Table:
    """Return the table in a CSV or Parquet file; what is not given is inferred and said in the table's findings.

    Raises InputError with one sentence that names file, line and column where the file is missing, empty, a folder, not
    text, or not a table.
    """
    source = os.fspath(path)
    data = _read_bytes(Path(path), source)
    if is_parquet(data):
        return parse_parquet(data, source=source)
    return parse_table(data, source=source, delimiter=delimiter, header=header, encoding=encoding)


def parse_table(
    data: bytes,
    *,
    source: str,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
) -> Table:
    r"""Return the table in the bytes of a CSV file; `source` is what messages call it.

    >>> table = parse_table(b'size;colour\n"1,5";"a ""b"" c"\n', source="t.csv")
    >>> table.names, table.cells, list(table.lines)
    (('size', 'colour'), (('1,5',), ('a "b" c',)), [2])
    """
    decoded = decode(data, source=source, encoding=encoding)
    text = decoded.text
    asked = None if delimiter is None else named_separator(delimiter)
    separator = asked or sniff_separator(text)
    findings = [f"separated by {separator_words(separator)}" + (", as asked" if asked else ""), decoded.finding]
    lines, rows = _rows(text, separator, source)
    if not rows:
        raise InputError(f"{source} is empty; give a file with a table in it.")
    if separator != " " and spaces_before_quotes(text, separator):
        findings.append("spaces before quoted cells removed, and so before all cells")
    if header is not False and (joined := _taken_apart(rows)):
        rows, joiner = joined
        findings.append(f"fields joined by {joiner!r} taken apart, because the header names {len(rows[0])} columns")
    check_widths(rows, lines, source=source, separator=separator)
    has_header = sniff_header(rows) if header is None else header
    how = "" if header is None else ", as asked"
    findings.append(f"header on line {lines[0]}{how}" if has_header else f"no header{how}: columns named c0, c1, ...")
    names = unique_names(rows[0] if has_header else [""] * len(rows[0]), where=f"{source}, line {lines[0]}")
    if decoded.damaged:
        raise damaged_cell(rows, lines, names, source=source, encoding=decoded.encoding)
    body = rows[has_header:]
    if not body:
        raise InputError(f"{source} has a header on line {lines[0]} and no rows below it; give a file with rows.")
    return Table(
        source=source,
        names=names,
        cells=tuple(zip(*body, strict=True)),
        lines=lines[has_header:],
        has_header=has_header,
        delimiter=separator,
        findings=tuple(findings),
    )


def _read_bytes(path: Path, source: str) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{source} is a folder; give the path of a CSV or Parquet file in it.")
        data = path.read_bytes()
    except FileNotFoundError:
        where = "" if path.parent.is_dir() else f", nor a folder {path.parent}"
        raise InputError(f"there is no file {source}{where}; check the path.") from None
    except PermissionError:
        raise InputError(f"{source} may not be read by this user; change its permissions.") from None
    except (OSError, ValueError) as fault:
        raise InputError(f"{source} cannot be read: {getattr(fault, 'strerror', None) or fault}.") from None
    if not data.strip():
        raise InputError(f"{source} is empty; give a file with a table in it.")
    return data


def _rows(text: str, separator: str, source: str) -> tuple[list[int], list[list[str]]]:
    """Return the line and the fields of every record that is not blank."""
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        for line, row in records(text, separator):
            if row:
                lines.append(line)
                rows.append(row)
    except csv.Error:
        raise quote_fault(text, separator, source=source, rows=rows, last_line=lines[-1] if lines else 0) from None
    if separator == " ":
        rows = without_trailing_space(rows)
    if any(len(row) == 1 for row in rows) and Counter(map(len, rows)).most_common(1)[0][0] > 1:
        kept = [index for index, row in enumerate(rows) if len(row) > 1 or row[0].strip()]
        lines, rows = [lines[index] for index in kept], [rows[index] for index in kept]
    return lines, rows


def _taken_apart(rows: Sequence[list[str]]) -> tuple[list[list[str]], str] | None:
    """Return the rows with joined fields taken apart, and the joiner, where that gives what the header names."""
    head, body = rows[0], rows[1:]
    if not body or any(len(row) >= len(head) for row in body):
        return None
    for joiner in _JOINERS:
        apart = [[part for cell in row for part in cell.split(joiner)] for row in body]
        if all(len(row) == len(head) for row in apart):
            return [head, *apart], joiner
    return None
