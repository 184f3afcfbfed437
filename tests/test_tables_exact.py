"""Odd but valid files read cell by cell exactly as they were generated."""

import math
import random
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contexture.errors import InputError
from contexture.tables import Table, read_table
from contexture.tables.columns import infer_column
from contexture.tables.read import parse_table
from contexture.tables.values import MISSING

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1")
WORDS = ("red", "Málaga", "o'neill", "æther", "x=1", "ß", "n°7", "A-1", "50%", "~", "\\n", "#5")
AWKWARD = ('say "hi"', "two\nlines", '"', "a,b;c", "tab\there", "pipe|pipe", " padded ", "", "d\r\ne", '""', "end,")


def cell(kind: str, rng: random.Random, delimiter: str) -> str:
    if kind != "text" and rng.random() < 0.05:
        return rng.choice(("NA", "?", "-", "N/A", "null") + (("",) if delimiter != " " else ()))
    day = date(1960, 1, 1) + timedelta(days=rng.randint(0, 30000))
    text = {
        "integer": str(rng.randint(-999, 99999)),
        "huge": rng.choice((f"{rng.choice('+-')}{rng.randrange(10**30, 10**60)}", "0" * 20 + "7")),
        "float": rng.choice((f"{rng.gauss(0, 100):.4f}", f"{rng.gauss(0, 1):.3e}", f".{rng.randint(1, 99)}", "5.")),
        "decimal comma": f"{rng.randint(-99, 99)},{rng.randint(0, 999):03d}",
        "date": day.isoformat(),
        "day.month.year": day.strftime("%d.%m.%Y"),
        "word": rng.choice(WORDS),
        "text": rng.choice((*AWKWARD, *WORDS)),
    }[kind]
    return text or ("" if delimiter != " " else "nothing")


def written(row: list[str], delimiter: str, *, always: bool = False) -> str:
    """Return a record by RFC 4180: quotes where they are needed, or everywhere."""
    needed = [always or any(character in text for character in f'{delimiter}"\r\n') for text in row]
    return delimiter.join(
        '"' + text.replace('"', '""') + '"' if quotes else text for text, quotes in zip(row, needed, strict=True)
    )


def draw(rng: random.Random) -> tuple[bytes, list[str] | None, list[list[str]]]:
    delimiter = rng.choice((",", ";", "\t", "|", " "))
    kinds = ["integer", "huge", "float", "date", "day.month.year", "word", "text"]
    kinds += ["decimal comma"] if delimiter != "," else []
    chosen = ["float" if delimiter == "," else rng.choice(("float", "decimal comma"))]
    chosen += rng.choices(kinds, k=rng.randint(1, 7))
    rng.shuffle(chosen)
    rows = [[cell(kind, rng, delimiter) for kind in chosen] for _ in range(rng.randint(5, 80))]
    names = rng.choice((None, [f"{rng.choice(WORDS)} {index}" for index in range(len(chosen))]))
    newline = rng.choice(("\n", "\r\n", "\r"))
    always = rng.random() < 0.3
    blank = 0.02 if rng.random() < 0.5 else 0.0
    records = [written(row, delimiter, always=always) for row in ([names] if names else []) + rows]
    text = "".join(record + newline * (1 + (rng.random() < blank)) for record in records)
    text = text.removesuffix(newline) if rng.random() < 0.2 else text
    return text.encode(rng.choice(ENCODINGS)), names, rows


@pytest.mark.parametrize("seed", range(200))
def test_an_odd_but_valid_file_reads_cell_by_cell(seed: int) -> None:
    data, names, rows = draw(random.Random(seed))
    table = parse_table(data, source="odd.csv")
    assert table.has_header is bool(names), table.findings
    if names:
        assert list(table.names) == names
    assert [list(row) for row in zip(*table.cells, strict=True)] == rows, table.findings


@pytest.mark.parametrize("seed", range(200))
def test_columns_of_numbers_and_dates_become_their_values(seed: int) -> None:
    rng = random.Random(seed)
    delimiter = rng.choice((",", ";", "\t"))
    kind = rng.choice(("integer", "huge", "float", "date", *(() if delimiter == "," else ("decimal comma",))))
    cells = [cell(kind, rng, delimiter) for _ in range(50)]
    table = Table(
        source="t", names=("a",), cells=(tuple(cells),), lines=range(50), has_header=True, delimiter=delimiter
    )
    column = infer_column(table, 0)
    assert column.kind == "numeric"
    for text, value in zip(cells, column.values, strict=True):
        if text.lower() in MISSING:
            assert math.isnan(value)
        elif kind == "date":
            assert value == (date.fromisoformat(text) - date(1970, 1, 1)).days
        else:
            assert value == float(text.replace(",", "."))


def writable(text: str) -> bool:
    return not any(ord(character) < 32 and character not in "\t\r\n" for character in text)


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(writable)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), delimiter=st.sampled_from(",;\t|#:"), newline=st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_was_written_by_the_rules_reads_back(data: st.DataObject, delimiter: str, newline: str) -> None:
    width = data.draw(st.integers(2, 5))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=6))
    if rows[0][0].startswith("\ufeff"):
        rows[0][0] = "x"
    text = "".join(written(row, delimiter) + newline for row in rows)
    table = parse_table(text.encode(), source="t.csv", delimiter=delimiter, header=False, encoding="utf-8")
    assert [list(row) for row in zip(*table.cells, strict=True)] == rows


def table_or_sentence(data: bytes) -> Table | str:
    try:
        return parse_table(data, source="t.csv")
    except InputError as fault:
        return str(fault)


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=200) | st.text(st.sampled_from('a1,;"\n\r |\t.é'), max_size=60).map(str.encode))
def test_any_bytes_give_a_table_or_one_sentence(data: bytes) -> None:
    outcome = table_or_sentence(data)
    if isinstance(outcome, str):
        assert outcome.startswith("t.csv")
        assert "\n" not in outcome
    else:
        assert len(outcome.cells) == outcome.num_columns
        assert {len(column) for column in outcome.cells} == {outcome.num_rows}


def test_every_line_is_known(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_bytes(b'x,y\r\n1,"a\r\nb\r\nc"\r\n\r\n2,d\r\n')
    table = read_table(path)
    assert table.cells == (("1", "2"), ("a\r\nb\r\nc", "d"))
    assert list(table.lines) == [2, 6]


def test_what_is_set_is_not_inferred() -> None:
    data = b"x;y\n1;2\n"
    table = parse_table(data, source="t.csv", delimiter="comma", header=False)
    assert table.cells == (("x;y", "1;2"),)
