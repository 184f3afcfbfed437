"""A table as it stands in a file: the text of every cell, and where each row came from.

Nothing is converted here: `cells[column][row]` is the text between the separators, quotes undone and nothing else.
Rows and lines are counted from 1 in messages, as editors do; columns have an index from 0 (negative from the end), the
same one that names the columns of a file without a header: `c0`, `c1`, ...
"""

import difflib
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal

from contexture.errors import InputError

__all__ = ["Table", "listed", "ordinal", "quoted", "unique_names"]

_LONGEST_QUOTE = 40
_LONGEST_LIST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Named columns of text, with the place of every row in its file.

    `lines[row]` is the line on which the row begins (a quoted cell may go on over several); for Parquet it is the
    number of the row. `text_columns` are those whose file says that they hold text (Parquet does, CSV cannot).

    >>> table = Table.from_columns(["x", "y"], [["1", "2"], ["a", "b"]], source="two.csv")
    >>> table.place("y", 1)
    "two.csv, line 3, column 'y' (2nd of 2)"
    """

    source: str
    names: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    lines: Sequence[int]
    has_header: bool
    delimiter: str | None = ","
    unit: Literal["line", "row"] = "line"
    text_columns: frozenset[int] = frozenset()
    findings: tuple[str, ...] = field(default=())

    @classmethod
    def from_columns(
        cls, names: Sequence[str], columns: Sequence[Sequence[str]], *, source: str = "the table"
    ) -> "Table":
        """Return a table of columns that are already in memory; its lines are those of a CSV file with a header."""
        num_rows = len(columns[0]) if columns else 0
        return cls(
            source=source,
            names=tuple(names),
            cells=tuple(tuple(column) for column in columns),
            lines=range(2, num_rows + 2),
            has_header=True,
        )

    @property
    def num_rows(self) -> int:
        """The number of rows, the header not counted."""
        return len(self.lines)

    @property
    def num_columns(self) -> int:
        """The number of columns."""
        return len(self.names)

    def index(self, column: str | int, *, option: str = "--target") -> int:
        """Return the index of a column given by name, by index or by an index written as text.

        A name goes before an index. Raises InputError, naming the columns that come close, where there is none.
        """
        if isinstance(column, str) and column in self.names:
            return self.names.index(column)
        try:
            wanted = int(column)
        except ValueError:
            raise InputError(
                f"{self.source} has no column {quoted(str(column))}{self._nearest(str(column))}; give {option} one of "
                f"its {self.num_columns} names, or an index from 0 to {self.num_columns - 1} (-1 is the last)."
            ) from None
        if not -self.num_columns <= wanted < self.num_columns:
            raise InputError(
                f"{self.source} has no column with index {wanted}: it has {self.num_columns} columns; give {option} an "
                f"index from 0 to {self.num_columns - 1}, or from -{self.num_columns} to -1 to count from the end."
            )
        return wanted % self.num_columns

    def place(self, column: str | int, row: int | None = None) -> str:
        """Return where a cell stands, for a message: file, line, column by name and by count."""
        index = self.names.index(column) if isinstance(column, str) else column
        line = "" if row is None else f", {self.unit} {self.lines[row]}"
        return f"{self.source}{line}, column {quoted(self.names[index])} ({ordinal(index + 1)} of {self.num_columns})"

    def _nearest(self, name: str) -> str:
        lowered = {known.lower(): known for known in reversed(self.names)}
        close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
        if close:
            return f" (close: {', '.join(quoted(lowered[known]) for known in close)})"
        return f" (it has {listed(list(map(quoted, self.names)))})"


def unique_names(given: Sequence[str], *, where: str) -> tuple[str, ...]:
    """Return column names without the spaces around them; an empty one is made from its index.

    Raises InputError where two columns have one name: a new table could not be matched to them.

    >>> unique_names(["", " price "], where="t.csv, line 1")
    ('c0', 'price')
    """
    names = [name.strip() for name in given]
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name and first.setdefault(name, index) != index:
            raise InputError(
                f"{where}: the {ordinal(first[name] + 1)} and the {ordinal(index + 1)} column are both named "
                f"{quoted(name)}; give each its own name, or pass --no-header if there is none."
            )
    for index, name in enumerate(names):
        if not name:
            names[index] = _free(f"c{index}", first)
    return tuple(names)


def _free(name: str, taken: Container[str]) -> str:
    while name in taken:
        name += "_"
    return name


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, ..., 11th, ...

    >>> [ordinal(number) for number in (1, 2, 3, 11, 22, 113)]
    ['1st', '2nd', '3rd', '11th', '22nd', '113th']
    """
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def quoted(text: str) -> str:
    """Return the text in quotes on one line, cut where it is long.

    >>> print(quoted("a" * 50))
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'
    """
    return repr(text if len(text) < _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "...")


def listed(words: Sequence[str]) -> str:
    """Return the first few words with commas, and how many more there are.

    >>> listed([str(number) for number in range(20)])
    '0, 1, 2, 3, 4, 5, 6, 7 and 12 more'
    """
    more = len(words) - _LONGEST_LIST
    return ", ".join(words[:_LONGEST_LIST]) + (f" and {more} more" if more > 0 else "")
