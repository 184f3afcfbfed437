"""What separates the cells of a text file, and whether its first line is a header: the same answer every time.

A separator is a candidate if nearly all records of the sample fall into the same number of fields, more than one. Among
candidates the one wins under which most of the text is in cells that are numbers or dates (so `1,5;2,5` goes by its
semicolons); then one that follows on every quoted cell; then the one with the most even records; then any before the
space; then the one that gives more fields; then tab, semicolon, pipe, comma in this order.
"""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contexture.errors import InputError
from contexture.tables.values import FORMS, is_missing, looks_typed

__all__ = ["SEPARATORS", "named_separator", "records", "separator_words", "sniff_header", "sniff_separator"]

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "pipes", ",": "commas", " ": "spaces"}
_NAMES = {"tab": "\t", "\\t": "\t", "semicolon": ";", "pipe": "|", "comma": ",", "space": " "}
_SAMPLE_CHARACTERS = 200_000
_SAMPLE_RECORDS = 200
_HEADER_ROWS = 300
_LARGEST_FIELD = 2**31 - 1


def separator_words(delimiter: str) -> str:
    """Return a separator as a finding says it."""
    return SEPARATORS.get(delimiter, repr(delimiter))


def named_separator(delimiter: str) -> str:
    r"""Return the one character that a separator given by the user means.

    >>> named_separator("tab"), named_separator(";")
    ('\t', ';')
    """
    character = _NAMES.get(delimiter.lower(), delimiter)
    if len(character) != 1 or character in '"\r\n':
        raise InputError(f"a separator is one character, or one of {', '.join(_NAMES)}; {delimiter!r} is neither.")
    return character


def records(text: str, delimiter: str, *, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield every record with the line on which it begins; a space as separator means any run of spaces.

    Raises csv.Error (strict) where a quoted field is not closed, or closed and followed by text.
    """
    lines = io.StringIO(text, newline="")
    spaced = delimiter == " " or spaces_before_quotes(text, delimiter)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=spaced, strict=strict)
    with _unlimited_fields():
        line = 1
        for record in reader:
            yield line, record
            line = reader.line_num + 1


def spaces_before_quotes(text: str, delimiter: str) -> bool:
    r"""Return whether some quoted field has spaces between the separator and its opening quote.

    >>> spaces_before_quotes('1, "a, b"\n', ","), spaces_before_quotes('1,", ""a"\n', ",")
    (True, False)
    """
    if f'{delimiter} "' not in text and '\n "' not in text and not text.startswith(' "'):
        return False
    edge = re.escape(delimiter)
    closed = re.compile(rf'(?:^|(?<=[{edge}\r\n]))"[^"]*(?:""[^"]*)*"(?=[{edge}\r\n]|$)')
    return re.search(rf'(?:^|[{edge}\r\n]) +"', closed.sub("", text)) is not None


def sniff_separator(text: str) -> str:
    r"""Return the separator of a text; a comma where there is one column.

    >>> sniff_separator("a;b\n1,5;2\n"), sniff_separator("1.0  2.0\n3.5  4.0\n"), sniff_separator("x\n1\n")
    (';', ' ', ',')
    """
    sample = text[:_SAMPLE_CHARACTERS]
    if len(sample) < len(text):
        sample = sample[: max(sample.rfind("\n"), sample.rfind("\r")) + 1] or sample
    candidates = []
    for preference, delimiter in enumerate(SEPARATORS):
        rows = [row for _, row in itertools.islice(records(sample, delimiter, strict=False), _SAMPLE_RECORDS)]
        rows = without_trailing_space(rows) if delimiter == " " else rows
        rows = [row for row in rows if any(cell.strip() for cell in row)]
        width, count = Counter(map(len, rows)).most_common(1)[0] if rows else (0, 0)
        if width > 1:
            cells = [cell.strip() for row in rows for cell in row]
            typed = sum(len(cell) for cell in cells if looks_typed(cell)) / max(1, sum(map(len, cells)))
            share = count / len(rows)
            fits = _quotes_fit(sample, delimiter)
            order = (round(typed, 2), fits, share, delimiter != " ", width, -preference)
            candidates.append((share, order, delimiter))
    if not candidates:
        return ","
    most_even = max(share for share, _, _ in candidates)
    return max((order, delimiter) for share, order, delimiter in candidates if share >= most_even - 0.1)[1]


def sniff_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row names the columns.

    It does if it has text over some column of numbers or dates and a number over none. Where no column decides, all
    are text: it does if its cells differ from each other and none comes again further down its own column.
    """
    head, body = rows[0], rows[1 : _HEADER_ROWS + 1]
    if not body:
        return not any(_is_number(cell) for cell in head)
    columns = [[row[index] for row in body if not is_missing(row[index])] for index in range(len(head))]
    over_numbers = [
        cell
        for cell, column in zip(head, columns, strict=True)
        if column and sum(map(_is_number, column)) >= 0.8 * len(column) and not is_missing(cell)
    ]
    if over_numbers:
        return not any(map(_is_number, over_numbers))
    if any(_is_number(cell) or (cell.strip() and is_missing(cell)) for cell in head):
        return False
    present = [cell.strip() for cell in head if cell.strip()]
    repeats = any(cell in column for cell, column in zip(head, columns, strict=True) if cell.strip())
    return bool(present) and len(present) >= len(head) - 1 and len(set(present)) == len(present) and not repeats


def without_trailing_space(rows: list[list[str]]) -> list[list[str]]:
    """Return the rows without the empty field that a space at the end of a line leaves."""
    widths = Counter(len(row) - (row[-1] == "") for row in rows if row)
    width = widths.most_common(1)[0][0] if widths else 0
    return [row[:-1] if row and row[-1] == "" and len(row) > width else row for row in rows]


def _quotes_fit(text: str, delimiter: str) -> bool:
    try:
        for _ in itertools.islice(records(text, delimiter), _SAMPLE_RECORDS):
            pass
    except csv.Error as fault:
        return "expected after" not in str(fault)
    return True


def _is_number(cell: str) -> bool:
    return not is_missing(cell) and any(parse(cell) is not None for parse in FORMS.values())


@contextmanager
def _unlimited_fields() -> Iterator[None]:
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
