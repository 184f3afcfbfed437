"""What is inferred of a table: kinds of columns, the target, what is left out, and how it can be set."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contexture.errors import InputError
from contexture.tables import Table, TableSchema, read_dataset, read_table, table_dataset
from contexture.tables.columns import infer_column
from contexture.tables.encode import encode_pairs, encode_queries, encode_schema
from contexture.tables.match import MatchedTable
from contexture.tables.sniff import sniff_header
from contexture.tables.values import DATE_FORMS, MISSING, is_missing


def table(**columns: list[str]) -> Table:
    return Table.from_columns(list(columns), list(columns.values()), source="t.csv")


def column(*cells: str, delimiter: str = ";") -> tuple[str, str, list[float]]:
    one = Table(source="t", names=("a",), cells=(cells,), lines=range(len(cells)), has_header=True, delimiter=delimiter)
    inferred = infer_column(one, 0)
    return inferred.kind, inferred.form, inferred.values.tolist()


def test_importing_tables_does_not_import_torch() -> None:
    code = "import sys, contexture.tables; sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_in_every_way_that_they_are_written() -> None:
    assert column("1", " -2.5 ", "+3e2", ".5", "6.") == ("numeric", "number", [1.0, -2.5, 300.0, 0.5, 6.0])
    assert column("1,5", "-2", "0,25") == ("numeric", "decimal comma", [1.5, -2.0, 0.25])
    assert column("1_000", "2_000")[0] == "categorical"
    assert column("1,5", "2,5", delimiter=",")[0] == "categorical"
    assert column("1,2,3", "2,5")[0] == "categorical"
    assert column(str(2**80)) == ("numeric", "number", [float(2**80)])


@pytest.mark.parametrize("mark", sorted(MISSING))
def test_every_mark_of_a_missing_value(mark: str) -> None:
    for written in (mark, mark.upper(), f" {mark} "):
        kind, _, values = column("1", written, "3")
        assert kind == "numeric"
        assert values[0] == 1.0
        assert math.isnan(values[1])
    assert not is_missing("0")
    assert not is_missing("nan1")


@pytest.mark.parametrize(
    ("cells", "form", "days"),
    [
        (("1970-01-01", "2000-02-29"), "year-month-day", [0, 11016]),
        (("1969/12/31", "1970/1/2"), "year-month-day", [-1, 1]),
        (("1970-01-01 12:00", "1970-01-02T06:00:00Z"), "year-month-day", [0.5, 1.25]),
        (("1970-01-01 00:00+02:00", "1970-01-01T00:00:43.2-0000"), "year-month-day", [-1 / 12, 0.0005]),
        (("1949-01", "1970-02"), "year-month", [-7670, 31]),
        (("31.12.1969", "2.1.1970 18:00"), "day.month.year", [-1, 1.75]),
        (("1/13/1970", "2/1/1970"), "month/day/year", [12, 31]),
        (("13/1/1970", "1/2/1970"), "day/month/year", [12, 31]),
    ],
)
def test_dates_are_days_since_1970(cells: tuple[str, ...], form: str, days: list[float]) -> None:
    assert column(*cells) == ("numeric", form, pytest.approx(days))


def test_a_date_that_could_be_read_in_two_ways_is_said() -> None:
    days = [f"{month}/{day}/1999" for month, day in ((1, 2), (3, 4), (5, 12))]
    assert "the day could also come first" in infer_column(table(when=days), 0).note
    assert "could" not in infer_column(table(when=[*days, "1/31/1999"]), 0).note


@pytest.mark.parametrize("text", ["2021-02-29", "1999-13-01", "2020-01-01 25:00", "32.1.2000", "12:30", "20200101"])
def test_what_is_no_date(text: str) -> None:
    assert all(parse(text) is None for parse in DATE_FORMS.values())


def test_text_below_95_percent_of_numbers_makes_categories_and_is_said() -> None:
    inferred = infer_column(table(a=[*map(str, range(94)), *["low"] * 6]), 0)
    assert inferred.kind == "categorical"
    assert "94 of its 100 cells are numbers, but 'low' on line 96 is not" in inferred.note


def test_text_in_5_percent_of_numbers_is_a_fault_unless_named_categorical() -> None:
    stray = table(a=[*map(str, range(95)), *["low"] * 5])
    with pytest.raises(InputError, match=r"line 97, column 'a' \(1st of 1\): found 'low' .*--categorical a"):
        infer_column(stray, 0)
    assert infer_column(stray, 0, kind="categorical").categories[-1] == "low"


def test_categories_are_sorted_numbers_first_and_by_value() -> None:
    inferred = infer_column(table(a=["b", "10", "9", "a", "?", " a"]), 0)
    assert inferred.categories == ("9", "10", "a", "b")
    assert inferred.values[[0, 1, 2, 3, 5]].tolist() == [3, 1, 0, 2, 2]
    assert inferred.num_missing == 1


FEATURE = [f"{i}.5" for i in range(24)]


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        ([str(i % 10) for i in range(24)], "classification", tuple(map(str, range(10)))),
        ([str(i % 11) for i in range(24)], "regression", ()),
        ([f"{i % 3}.0" for i in range(24)], "classification", ("0.0", "1.0", "2.0")),
        ([f"{i % 3}.5" for i in range(24)], "regression", ()),
        ([("no", "yes")[i % 2] for i in range(24)], "classification", ("no", "yes")),
        ([str(-(i % 2)) for i in range(24)], "classification", ("-1", "0")),
        ([f"2020-01-{i % 5 + 1:02d}" for i in range(24)], "regression", ()),
    ],
)
def test_what_a_target_is(target: list[str], task: str, classes: tuple[str, ...]) -> None:
    data = table_dataset(table(x=FEATURE, y=target), target="y")
    assert (data.schema.task, data.classes) == (task, classes)
    assert data.y.dtype == (np.int64 if classes else np.float64)
    if classes:
        assert [classes[code] for code in data.y] == target


def test_what_is_inferred_can_be_set() -> None:
    rows = table(x=FEATURE, code=[str(i % 3) for i in range(24)], y=[str(i % 4) for i in range(24)])
    assert table_dataset(rows, target="y", task="regression").y[:5].tolist() == [0.0, 1.0, 2.0, 3.0, 0.0]
    assert table_dataset(rows, target="y", numeric=["y"]).schema.task == "regression"
    assert table_dataset(rows, target="y", categorical=["code"]).schema.features[1].categories == ("0", "1", "2")
    assert table_dataset(rows, target="y", categorical="code").schema.features[1].kind == "categorical"
    assert table_dataset(rows, target="x", categorical=[-3, 1, 2], task="regression", numeric=()).num_rows == 24
    as_class = table_dataset(table(x=FEATURE, y=[f"{i % 12}.5" for i in range(24)]), target=1, task="classification")
    assert len(as_class.classes) == 12


@pytest.mark.parametrize("target", ["y", 1, "1", -2, "-2"])
def test_a_target_by_name_or_by_index(target: str | int) -> None:
    data = table_dataset(table(x=FEATURE, y=FEATURE[::-1], z=FEATURE), target=target)
    assert data.schema.target.name == "y"
    assert [feature.index for feature in data.schema.features] == [0, 2]


def test_a_name_goes_before_an_index() -> None:
    assert table_dataset(table(**{"1": FEATURE, "0": FEATURE[::-1]}), target="1").schema.target.index == 0


def test_rows_without_a_target_are_dropped_when_asked_and_counted() -> None:
    rows = table(x=FEATURE, y=["?", *FEATURE[1:20], "", *FEATURE[21:]])
    with pytest.raises(InputError, match=r"line 2, column 'y' .* and in 1 more of 24 rows"):
        table_dataset(rows, target="y")
    data = table_dataset(rows, target="y", drop_missing_target=True)
    assert data.num_rows == 22
    assert data.lines.tolist() == [*range(3, 22), *range(23, 26)]
    assert "2 rows left out, in which the target 'y' is missing" in data.findings


def test_columns_that_cannot_help_are_left_out_and_said() -> None:
    rows = table(
        x=FEATURE,
        empty=["?", ""] * 12,
        same=["7"] * 24,
        name=[f"n{i}" for i in range(24)],
        gaps=["7", ""] * 12,
        y=FEATURE,
    )
    data = table_dataset(rows, target="y")
    assert [feature.name for feature in data.schema.features] == ["x", "gaps"]
    assert data.schema.dropped == ("empty", "same", "name")
    assert sum("left out" in finding for finding in data.findings) == 3
    kept = table_dataset(rows, target="y", categorical=["name"])
    assert "name" in [feature.name for feature in kept.schema.features]


def test_a_description_for_people() -> None:
    rows = table(x=["?", *FEATURE[1:]], kind=["a", "b"] * 12, y=["no", "yes", "yes"] * 8)
    assert table_dataset(rows, target="y").describe()[:4] == [
        "t.csv: 24 rows, 2 features: 1 numeric and 1 categorical",
        "target y: a class, of 2 (rows of each: no 8, yes 16)",
        "categorical features (and how many categories): kind (2)",
        "missing cells: x 1",
    ]
    assert (
        table_dataset(rows, target="x", drop_missing_target=True).describe()[1] == "target x: a number from 1.5 to 23.5"
    )


def test_chosen_rows_keep_their_lines_and_the_schema() -> None:
    data = table_dataset(table(x=FEATURE, y=FEATURE), target="y")
    some = data.rows(np.array([3, 0]))
    assert some.x[:, 0].tolist() == [3.5, 0.5]
    assert some.lines.tolist() == [5, 2]
    assert some.schema is data.schema


def test_a_schema_survives_json() -> None:
    data = table_dataset(table(x=FEATURE, kind=["a", "b"] * 12, y=["u", "v", "v"] * 8), target="y")
    assert TableSchema.from_json(data.schema.as_json()) == data.schema


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["a", "b"], ["1", "x"]], True),
        ([["1", "b"], ["1", "x"]], False),
        ([["", "name"], ["0", "x"], ["1", "y"]], True),
        ([["M", "x"], ["F", "y"], ["M", "z"]], False),
        ([["sex", "name"], ["F", "y"], ["M", "z"]], True),
        ([["a", "a"], ["F", "y"], ["M", "z"]], False),
        ([["?", "w"], ["2", "y"], ["3", "z"]], False),
        ([["when", "what"], ["2020-01-01", "y"]], True),
        ([["a", "b"]], True),
        ([["a", "1"]], False),
    ],
)
def test_what_a_header_is(rows: list[list[str]], expected: bool) -> None:
    assert sniff_header(rows) is expected


def test_a_dataset_as_episodes() -> None:
    data = table_dataset(table(x=["?", *FEATURE[1:]], kind=["a", "b"] * 12, y=["u", "v", "v"] * 8), target="y")
    schema = encode_schema(data.schema)
    assert schema.task == "classification"
    assert schema.target.categories == ("u", "v")
    assert [feature.kind for feature in schema.features] == ["numeric", "categorical"]
    pairs = encode_pairs(data, rows=np.array([[0, 1, 2], [23, 22, 21]]), schema=schema)
    assert pairs.x.shape == (2, 3, 2)
    assert pairs.x[1, :, 0].tolist() == [23.5, 22.5, 21.5]
    assert pairs.x[0, 0, 0].isnan()
    assert pairs.y.tolist() == [[0, 1, 1], [1, 1, 0]]
    matched = MatchedTable(x=data.x, lines=data.lines, findings=())
    assert encode_queries(matched).shape == (1, 24, 2)


REAL = {
    "abalone.csv": (4177, 7, 1, "regression"),
    "adult-test.csv": (16281, 6, 8, 2),
    "airline-passengers.csv": (144, 1, 0, "regression"),
    "auto_imports.csv": (201, 15, 10, "regression"),
    "banknote_authentication.csv": (1372, 4, 0, 2),
    "breast-cancer-wisconsin.csv": (699, 9, 0, 2),
    "daily-min-temperatures.csv": (3650, 1, 0, "regression"),
    "glass.csv": (214, 9, 0, 6),
    "haberman.csv": (306, 3, 0, 2),
    "housing.csv": (506, 13, 0, "regression"),
    "ionosphere.csv": (351, 33, 0, 2),
    "iris.csv": (150, 4, 0, 3),
    "winequality-red.csv": (1599, 11, 0, 6),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_table_reads(name: str, contexture_data: Path) -> None:
    num_rows, num_numeric, num_categorical, target = REAL[name]
    data = read_dataset(contexture_data / "tabular" / name, target=-1)
    kinds = [feature.kind for feature in data.schema.features]
    assert data.num_rows == num_rows
    assert (kinds.count("numeric"), kinds.count("categorical")) == (num_numeric, num_categorical)
    assert (len(data.classes) or data.schema.task) == target
    assert data.schema.has_header is (name in ("airline-passengers.csv", "daily-min-temperatures.csv"))


def test_the_cells_of_a_real_table(contexture_data: Path) -> None:
    cars = read_dataset(contexture_data / "tabular" / "auto_imports.csv", target=-1)
    losses, price = cars.x[:, 1], cars.y
    assert np.isnan(losses).sum() == 37
    assert losses[3] == 164
    assert price[:3].tolist() == [13495, 16500, 16500]
    assert cars.schema.features[2].categories[:3] == ("alfa-romero", "audi", "bmw")
    adult = read_table(contexture_data / "tabular" / "adult-test.csv")
    assert adult.cells[1][0] == " Private"
    assert read_dataset(contexture_data / "tabular" / "adult-test.csv", target=-1).classes == ("<=50K.", ">50K.")


def test_a_header_and_joined_fields(contexture_data: Path) -> None:
    market = read_table(contexture_data / "elec2" / "elec.csv")
    assert market.names[-1] == "class"
    assert (market.num_rows, market.num_columns) == (45312, 7)
    assert market.cells[0][1] == "0.021277"
    assert any("joined by '#'" in finding for finding in market.findings)
