"""Twenty faults, each planted in ten generated files: the message names the file, the line and the column."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contexture.errors import InputError
from contexture.tables import match_columns, read_dataset, read_matching, read_table, write_predictions
from contexture.tables.frame import ordinal

WORDS = ("red", "green", "blé", "naïve", "grün")


@dataclass
class Sheet:
    """A valid table whose records can be spoilt one by one before it is written."""

    rng: random.Random
    delimiter: str
    newline: str
    encoding: str
    names: list[str]
    rows: list[list[str]]
    has_header: bool
    records: list[str] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: random.Random) -> "Sheet":
        kinds = [*rng.choices(("number", "word", "date"), k=rng.randint(1, 4)), "number", "note", "number"]
        delimiter = rng.choice(",;\t|")
        rows = [[cls.cell(kind, rng) for kind in kinds] for _ in range(rng.randint(24, 60))]
        rows[0][-3], rows[0][-1] = "1.25", "2.5"
        names = [f"{kind}_{index}" for index, kind in enumerate(kinds)]
        sheet = cls(
            rng=rng,
            delimiter=delimiter,
            newline=rng.choice(("\n", "\r\n", "\r")),
            encoding=rng.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252")),
            names=names,
            rows=rows,
            has_header=rng.random() < 0.5,
        )
        sheet.render()
        return sheet

    @staticmethod
    def cell(kind: str, rng: random.Random) -> str:
        if kind == "number":
            return f"{rng.uniform(-50, 50):.3f}"
        if kind == "date":
            return f"20{rng.randint(10, 30)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        if kind == "word":
            return rng.choice(WORDS)
        return rng.choice(('"two\nlines"', '"one ""quoted"" line"', "plain", '"plain"')) if rng.random() < 0.9 else ""

    def render(self) -> None:
        self.records = [self.delimiter.join(row) for row in self.rows]
        if self.has_header:
            self.records.insert(0, self.delimiter.join(self.names))

    def pick_row(self, first: int = 1) -> int:
        return self.rng.randrange(first, len(self.rows))

    def pick_column(self, kind: str) -> int:
        return self.rng.choice([index for index, name in enumerate(self.names[:-1]) if name.startswith(kind)])

    def put(self, row: int, column: int, text: str) -> tuple[int, int]:
        self.rows[row][column] = text
        self.render()
        return self.line(row), column

    def line(self, row: int) -> int:
        return 1 + sum(1 + record.count("\n") for record in self.records[: row + self.has_header])

    def name(self, column: int) -> str:
        return self.names[column] if self.has_header else f"c{column}"

    def write(self, path: Path) -> Path:
        text = "".join(record + self.newline for record in self.records)
        path.write_bytes(text.encode(self.encoding))
        return path


Planter = Callable[[Sheet], tuple[int | None, int | None, dict[str, Any]]]
FAULTS: dict[str, tuple[Planter, str]] = {}


def fault(name: str, says: str) -> Callable[[Planter], Planter]:
    def keep(planter: Planter) -> Planter:
        FAULTS[name] = planter, says
        return planter

    return keep


@fault("too many fields", "fields where the other rows have")
def _(sheet: Sheet) -> Any:
    row = sheet.pick_row()
    sheet.records[row + sheet.has_header] += sheet.delimiter + "9.75"
    return sheet.line(row), len(sheet.names), {}


@fault("too few fields", "nothing for column")
def _(sheet: Sheet) -> Any:
    row = sheet.pick_row()
    kept = sheet.rng.randint(1, len(sheet.names) - 1)
    sheet.records[row + sheet.has_header] = sheet.delimiter.join(sheet.rows[row][:kept])
    return sheet.line(row), kept, {}


@fault("quote never closed", "the quote that opens here is never closed")
def _(sheet: Sheet) -> Any:
    row = sheet.pick_row()
    for later in sheet.rows[row:]:
        later[-2] = "plain"
    return (*sheet.put(row, sheet.pick_column("number"), '"1.5'), {})


@fault("text behind a quote", "the quoted cell is followed by")
def _(sheet: Sheet) -> Any:
    return (*sheet.put(sheet.pick_row(), sheet.pick_column("number"), '"a" b'), {})


@fault("text in a numeric feature", "where the other cells are numbers")
def _(sheet: Sheet) -> Any:
    return (*sheet.put(sheet.pick_row(), sheet.pick_column("number"), "oops"), {})


@fault("text in a numeric target", "where the other cells are numbers")
def _(sheet: Sheet) -> Any:
    return (*sheet.put(sheet.pick_row(), len(sheet.names) - 1, "about 3"), {})


@fault("infinity in the target", "is infinity")
def _(sheet: Sheet) -> Any:
    return (*sheet.put(sheet.pick_row(), len(sheet.names) - 1, sheet.rng.choice(("inf", "-Infinity", "+INF"))), {})


@fault("infinity in a feature", "is infinity")
def _(sheet: Sheet) -> Any:
    return (*sheet.put(sheet.pick_row(), sheet.pick_column("number"), "-inf"), {})


@fault("a number beyond doubles", "too large for a double")
def _(sheet: Sheet) -> Any:
    return (*sheet.put(sheet.pick_row(), sheet.pick_column("number"), sheet.rng.choice(("1e999", "9" * 400))), {})


@fault("a missing target", "the target is missing here")
def _(sheet: Sheet) -> Any:
    return (*sheet.put(sheet.pick_row(), len(sheet.names) - 1, sheet.rng.choice(("", "NA", "?", " null "))), {})


@fault("a target missing throughout", "the target is missing in every row")
def _(sheet: Sheet) -> Any:
    for row in range(len(sheet.rows)):
        sheet.put(row, len(sheet.names) - 1, "NaN")
    return None, len(sheet.names) - 1, {}


@fault("a constant target", "the target is constant")
def _(sheet: Sheet) -> Any:
    for row in range(len(sheet.rows)):
        sheet.put(row, len(sheet.names) - 1, "3.5")
    return sheet.line(0), len(sheet.names) - 1, {}


@fault("one class", "the target is one class")
def _(sheet: Sheet) -> Any:
    for row in range(len(sheet.rows)):
        sheet.put(row, len(sheet.names) - 1, "yes")
    return sheet.line(0), len(sheet.names) - 1, {}


@fault("a class of its own in every row", "a class of its own in every row")
def _(sheet: Sheet) -> Any:
    for row in range(len(sheet.rows)):
        sheet.put(row, len(sheet.names) - 1, f"name{row}")
    return sheet.line(0), len(sheet.names) - 1, {}


@fault("an impossible date", "where the other cells are dates")
def _(sheet: Sheet) -> Any:
    for row in sheet.rows:
        row[0] = sheet.cell("date", sheet.rng)
    return (*sheet.put(sheet.pick_row(), 0, "2021-02-29"), {})


@fault("a point among decimal commas", "where the other cells are numbers with a decimal comma")
def _(sheet: Sheet) -> Any:
    sheet.delimiter = sheet.rng.choice(";\t|")
    column = sheet.pick_column("number")
    for row in sheet.rows:
        row[column] = f"{sheet.rng.randint(0, 99)},{sheet.rng.randint(100, 999)}"
    return (*sheet.put(sheet.pick_row(), column, "1.234"), {})


@fault("bytes that are not UTF-8", "holds bytes that are not utf-8")
def _(sheet: Sheet) -> Any:
    sheet.encoding = "utf-8"
    row, column = sheet.pick_row(), sheet.pick_column("number")
    for other in sheet.rows:
        other[-2] = "Zürich"
    place = sheet.put(row, column, "mal\udcff")
    sheet.write = lambda path: path.write_bytes(  # type: ignore[method-assign,assignment]
        sheet.newline.join(sheet.records).encode("utf-8", errors="surrogateescape")
    )
    return (*place, {})


@fault("a NUL byte", "this is a binary file")
def _(sheet: Sheet) -> Any:
    line, _ = sheet.put(sheet.pick_row(), sheet.pick_column("number"), "1\x00")
    return line, None, {}


@fault("two columns of one name", "are both named")
def _(sheet: Sheet) -> Any:
    sheet.has_header = True
    one, two = sorted(sheet.rng.sample(range(len(sheet.names)), 2))
    sheet.names[two] = sheet.names[one]
    sheet.render()
    return 1, two, {}


@fault("a target that is not there", "has no column")
def _(sheet: Sheet) -> Any:
    sheet.has_header = True
    sheet.names[-2] = "price of it"
    sheet.render()
    return None, None, {"target": sheet.rng.choice(("prise of it", "Price of It", "price_of_it"))}


@fault("a target index out of range", "has no column with index")
def _(sheet: Sheet) -> Any:
    return None, None, {"target": sheet.rng.choice((len(sheet.names), -len(sheet.names) - 1, "99"))}


@fault("a header and no rows", "no rows below it")
def _(sheet: Sheet) -> Any:
    sheet.has_header = True
    sheet.rows.clear()
    sheet.render()
    return 1, None, {}


def plain(text: str) -> str:
    return text.replace("\udcff", "\ufffd")


@pytest.mark.parametrize("draw", range(10))
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_with_line_and_column(name: str, draw: int, tmp_path: Path) -> None:
    plant, says = FAULTS[name]
    sheet = Sheet.draw(random.Random(f"{name} {draw}"))
    line, column, options = plant(sheet)
    path = tmp_path / "planted.csv"
    sheet.write(path)
    with pytest.raises(InputError) as caught:
        read_dataset(path, **{"target": -1, **options})
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert says in message, message
    assert message.endswith(".")
    assert "\n" not in message
    if line is not None:
        assert re.search(rf"\blines? {line}\b", message), (line, message)
    if column is not None:
        assert re.search(rf"\b{ordinal(column + 1)}\b", message), (column, message)
    if column is not None and column < len(sheet.names):
        assert repr(sheet.name(column)) in message, (sheet.name(column), message)


@pytest.mark.parametrize("draw", range(10))
@pytest.mark.parametrize("name", ["text in a numeric feature", "infinity in a feature", "a number beyond doubles"])
def test_faults_in_a_new_table_are_named_too(name: str, draw: int, tmp_path: Path) -> None:
    plant, _ = FAULTS[name]
    sheet = Sheet.draw(random.Random(f"new {name} {draw}"))
    trained = read_dataset(sheet.write(tmp_path / "train.csv"), target=-1)
    line, column, _ = plant(sheet)
    with pytest.raises(InputError, match=rf"new\.csv, line {line}, column '{sheet.name(column)}'"):
        match_columns(trained.schema, read_matching(sheet.write(tmp_path / "new.csv"), trained.schema))


def test_there_are_twenty_faults_at_least() -> None:
    assert len(FAULTS) >= 20


@pytest.mark.parametrize("draw", range(30))
def test_a_sheet_without_a_fault_reads(draw: int, tmp_path: Path) -> None:
    sheet = Sheet.draw(random.Random(draw))
    data = read_dataset(sheet.write(tmp_path / "clean.csv"), target=-1)
    assert data.num_rows == len(sheet.rows)
    assert data.lines.tolist() == [sheet.line(row) for row in range(len(sheet.rows))]
    assert data.y.tolist() == [float(row[-1]) for row in sheet.rows]


def sentence(act: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_readable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no file" in sentence(lambda: read_table(tmp_path / "none.csv"))
    assert "nor a folder" in sentence(lambda: read_table(tmp_path / "no" / "none.csv"))
    assert "is a folder" in sentence(lambda: read_table(tmp_path))
    path = tmp_path / "file.csv"
    path.write_bytes(b"")
    assert "is empty" in sentence(lambda: read_table(path))
    path.write_bytes(b"\xff\xfe\n\x00\r\x00")
    assert "is empty" in sentence(lambda: read_table(path))

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "may not be read" in sentence(lambda: read_table(path))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04....", "spreadsheet"),
        (b"\x1f\x8b\x08....", "gzip"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"a,b\n1,\x01\n", "line 2 holds the control character 0x01"),
        ("a,b\n1,2\n".encode("utf-16-le"), "--encoding utf-16-le"),
    ],
)
def test_a_binary_is_called_what_it_is(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(data)
    assert what in sentence(lambda: read_table(path))


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("x,y,z\n" + "".join(f"{i},{i % 7}.5,{'ab'[i % 2]}\n" for i in range(20)))
    assert "not an encoding" in sentence(lambda: read_table(path, encoding="utf-9"))
    assert "one character" in sentence(lambda: read_table(path, delimiter="::"))
    assert "say which column" in sentence(lambda: read_dataset(path, target=None))
    assert "both --categorical and --numeric" in sentence(
        lambda: read_dataset(path, target="y", categorical=["x"], numeric=[0])
    )
    assert "line 2, column 'z' (3rd of 3): found 'a'" in sentence(lambda: read_dataset(path, target="y", numeric=["z"]))
    assert "line 2, column 'z'" in sentence(lambda: read_dataset(path, target="z", task="regression"))
    assert "at least 30" in sentence(lambda: read_dataset(path, target="y", min_rows=30))
    assert "not for 'ranking'" in sentence(lambda: read_dataset(path, target="y", task="ranking"))  # type: ignore[arg-type]


def test_close_names_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("Price,size\n" + "1,2\n" * 20)
    assert "'price' (close: 'Price')" in sentence(lambda: read_dataset(path, target="price"))


def test_no_feature_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("x,y\n" + "".join(f"1,{i}.5\n" for i in range(20)))
    assert "no column besides the target" in sentence(lambda: read_dataset(path, target="y"))


def test_predictions_do_not_go_over_an_input(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("x\n1\n")
    (tmp_path / "link.csv").symlink_to(path)
    assert "also an input" in sentence(lambda: write_predictions(tmp_path / "link.csv", {"y": [1]}, inputs=[path]))
    assert "no folder" in sentence(lambda: write_predictions(tmp_path / "no" / "out.csv", {"y": [1]}))
    assert "is a folder" in sentence(lambda: write_predictions(tmp_path, {"y": [1]}))
    assert "written as CSV" in sentence(lambda: write_predictions(tmp_path / "out.parquet", {"y": [1]}))
    assert "one length" in sentence(lambda: write_predictions(tmp_path / "out.csv", {"y": [1], "z": []}))
    assert path.read_text() == "x\n1\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.csv", "new.csv"]
