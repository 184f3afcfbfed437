"""The sentence for a text file that is no table: which line, which column, what stands there, how to mend it."""

import re
from collections import Counter
from collections.abc import Sequence

from contexture.errors import InputError
from contexture.tables.decode import REPLACEMENT
from contexture.tables.frame import ordinal, quoted
from contexture.tables.sniff import sniff_header, spaces_before_quotes

__all__ = ["check_widths", "damaged_cell", "quote_fault"]

_LINE_END = re.compile(r"\r\n|\r|\n")


def check_widths(rows: Sequence[Sequence[str]], lines: Sequence[int], *, source: str, separator: str) -> None:
    """Raise InputError for the first row that has not as many fields as most rows have."""
    widths = Counter(map(len, rows))
    if len(widths) == 1:
        return
    width = widths.most_common(1)[0][0]
    bad = next(index for index, row in enumerate(rows) if len(row) != width)
    row = rows[bad]
    others = "the other rows have" if widths[width] == len(rows) - 1 else "most rows have"
    found = f"{source}, line {lines[bad]}: {len(row)} {'field' if len(row) == 1 else 'fields'} where {others} {width}"
    if len(row) > width:
        raise InputError(
            f"{found}, the first too many (the {ordinal(width + 1)}) being {quoted(row[width])}; take it out, or put "
            f"quotes around a cell that contains {quoted(separator)}."
        )
    name = _name([row for row in rows if len(row) == width], len(row))
    raise InputError(
        f"{found}, nothing for column {name} ({ordinal(len(row) + 1)} of {width}); add what is missing, with nothing "
        f"between two separators for an empty cell."
    )


def quote_fault(text: str, separator: str, *, source: str, rows: Sequence[Sequence[str]], last_line: int) -> InputError:
    """Return the error for the first quoted cell that does not end as it should.

    `rows` are the records before it, `last_line` the line on which the last of them begins.
    """
    at = 0 if last_line < 2 else [end.end() for end in _LINE_END.finditer(text)][last_line - 2]
    edge = re.escape(separator)
    space = " *" if separator == " " or spaces_before_quotes(text, separator) else ""
    field = re.compile(rf'{space}(?:(?P<open>")[^"]*(?:""[^"]*)*(?P<close>"?)|[^{edge}\r\n]*)')
    index = 0
    while found := field.match(text, at):
        following = text[found.end() : found.end() + 1]
        if found["open"] and (not found["close"] or (following and following not in f"{separator}\r\n")):
            line = len(_LINE_END.findall(text, 0, at)) + 1
            where = f"{source}, line {line}, column {_name(rows, index)} ({ordinal(index + 1)})"
            if not found["close"]:
                return InputError(
                    f'{where}: the quote that opens here is never closed; close it, or write "" for a quote that '
                    f"belongs to the text."
                )
            stray = re.compile(rf"[^{edge}\r\n]*").match(text, found.end())
            return InputError(
                f"{where}: the quoted cell is followed by {quoted(stray[0] if stray else following)} before the next "
                f'separator; close the quote where the cell ends, and write "" for a quote that belongs to the text.'
            )
        if not following:
            break
        index = 0 if following in "\r\n" else index + 1
        at = found.end() + (2 if text.startswith("\r\n", found.end()) else 1)
    return InputError(f"{source}, line {last_line + 1}: the quotes do not match; close each of them.")


def damaged_cell(
    rows: Sequence[Sequence[str]], lines: Sequence[int], names: Sequence[str], *, source: str, encoding: str
) -> InputError:
    """Return the error for the first cell in which bytes did not decode."""
    line, index, cell = next(
        (line, index, cell)
        for line, row in zip(lines, rows, strict=True)
        for index, cell in enumerate(row)
        if REPLACEMENT in cell
    )
    return InputError(
        f"{source}, line {line}, column {quoted(names[index])} ({ordinal(index + 1)} of {len(names)}): {quoted(cell)} "
        f"holds bytes that are not {encoding}; save the file as UTF-8, or name its encoding with --encoding."
    )


def _name(rows: Sequence[Sequence[str]], index: int) -> str:
    """Return what the header calls a column, or its name by index where there is no header."""
    even = [row for row in rows if len(row) == len(rows[0])]
    named = len(even) > 1 and index < len(even[0]) and sniff_header(even)
    return quoted((rows[0][index].strip() if named else "") or f"c{index}")
