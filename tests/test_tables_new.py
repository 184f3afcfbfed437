"""New tables matched to a training table, Parquet files, and predictions written out."""

import csv
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contexture.errors import InputError
from contexture.tables import match_columns, read_dataset, read_matching, read_table, write_predictions

HEADER = "size;fuel;when;price\n"
ROWS = "".join(f"{i},5;{('gas', 'diesel')[i % 2]};{i % 28 + 1}.1.2020;{100 + i}\n" for i in range(20))


def trained(tmp_path: Path, header: bool = True) -> Any:
    path = tmp_path / "train.csv"
    path.write_text((HEADER if header else "") + ROWS)
    return read_dataset(path, target="price" if header else 3).schema


def matched(tmp_path: Path, schema: Any, text: str) -> Any:
    path = tmp_path / "new.csv"
    path.write_text(text)
    return match_columns(schema, read_matching(path, schema))


def test_columns_are_matched_by_name_in_any_order(tmp_path: Path) -> None:
    new = matched(tmp_path, trained(tmp_path), "when,fuel,size\n3.1.1970,gas,2.5\n4.1.1970,diesel,\n")
    assert new.x[0].tolist() == [2.5, 1.0, 2.0]
    assert math.isnan(new.x[1, 0])
    assert new.x[1, 1:].tolist() == [0.0, 3.0]
    assert new.findings == ()
    assert new.lines.tolist() == [2, 3]


def test_unseen_categories_missing_and_extra_columns_are_said(tmp_path: Path) -> None:
    new = matched(tmp_path, trained(tmp_path), "Size;fuel;colour;price\n1;hydrogen;red;5\n2;gas;blue;6\n3;muscle;;7\n")
    assert np.isnan(new.x[:, 0]).all()
    assert np.isnan(new.x[:, 2]).all()
    assert np.isnan(new.x[[0, 2], 1]).all()
    assert new.x[1, 1] == 1.0
    assert new.findings == (
        "no column 'size': taken as missing (is it 'Size'?)",
        "no column 'when': taken as missing",
        "columns passed over, which training did not have: 'Size', 'colour'",
        "column 'fuel': 2 cells hold categories that training did not have ('hydrogen', 'muscle'), taken as missing",
    )


def test_columns_left_out_in_training_are_not_extra(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("x,same,y\n" + "".join(f"{i}.5,1,{i}.25\n" for i in range(20)))
    assert matched(tmp_path, read_dataset(path, target="y").schema, "x,same\n1,1\n").findings == ()


def test_without_a_header_columns_are_matched_by_place(tmp_path: Path) -> None:
    schema = trained(tmp_path, header=False)
    assert matched(tmp_path, schema, "1,5;gas;2.1.1970;7\n").x.tolist() == [[1.5, 1.0, 1.0]]
    assert matched(tmp_path, schema, "1,5;gas;2.1.1970\n").x.tolist() == [[1.5, 1.0, 1.0]]
    with pytest.raises(InputError, match="has 2 columns where the training table, without a header, has 4"):
        matched(tmp_path, schema, "1,5;gas\n")


def test_without_a_header_an_absent_target_in_the_middle_shifts_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("".join(f"{i}.5,{i % 7}.25,{('a', 'b')[i % 2]}\n" for i in range(20)))
    schema = read_dataset(path, target=1).schema
    assert matched(tmp_path, schema, "9.5,0,b\n").x.tolist() == [[9.5, 1.0]]
    assert matched(tmp_path, schema, "9.5,b\n").x.tolist() == [[9.5, 1.0]]


def test_nothing_in_common_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the training table's columns \('size', 'fuel', 'when'\)"):
        matched(tmp_path, trained(tmp_path), "a,b\n1,2\n")


def test_text_where_numbers_or_dates_were_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"new\.csv, line 3, column 'size' \(1st of 2\): found 'big'"):
        matched(tmp_path, trained(tmp_path), "size,fuel\n1,gas\nbig,gas\n")
    with pytest.raises(InputError, match=r"line 2, column 'when' .*are dates \(day.month.year\)"):
        matched(tmp_path, trained(tmp_path), "size,when\n1,2020-01-01\n")


def test_a_whole_new_file_of_real_rows(tmp_path: Path, contexture_data: Path) -> None:
    lines = (contexture_data / "tabular" / "auto_imports.csv").read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(lines[:150]))
    schema = read_dataset(tmp_path / "train.csv", target=-1).schema
    with_target = matched(tmp_path, schema, "".join(lines[150:]))
    without = matched(tmp_path, schema, "".join(line.rsplit(",", 1)[0] + "\n" for line in lines[150:]))
    assert with_target.x.shape == (len(lines) - 150, len(schema.features))
    np.testing.assert_array_equal(with_target.x, without.x)
    assert with_target.findings == without.findings


def parquet(path: Path, **columns: Any) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_parquet_file_reads_by_its_types(tmp_path: Path) -> None:
    import datetime

    import pyarrow

    path = parquet(
        tmp_path / "t.parquet",
        x=[0.1, None, float("nan"), 1e300] * 5,
        zip=["00123", "00456", None, "00123"] * 5,
        day=[datetime.date(1970, 1, 2), datetime.date(1970, 1, 3), None, None] * 5,
        at=pyarrow.array([0, 43_200_000, None, 86_400_000] * 5, pyarrow.timestamp("ms")),
        kind=pyarrow.array(["a", "b", "a", None] * 5).dictionary_encode(),
        flag=[True, False, None, True] * 5,
        y=[(i + 1) << 58 for i in range(20)],
    )
    table = read_table(path)
    assert table.cells[0][:4] == ("0.1", "", "", "1e+300")
    assert table.cells[-1][0] == str(2**58)
    data = read_dataset(path, target="y")
    kinds = {feature.name: feature.kind for feature in data.schema.features}
    assert kinds == {
        "x": "numeric",
        "zip": "categorical",
        "day": "numeric",
        "at": "numeric",
        "kind": "categorical",
        "flag": "categorical",
    }
    assert data.schema.features[1].categories == ("00123", "00456")
    np.testing.assert_array_equal(data.x[:4, 2], [1, 2, np.nan, np.nan])
    np.testing.assert_array_equal(data.x[:4, 3], [0, 0.5, np.nan, 1])
    assert read_dataset(path, target="y", numeric=["zip"]).x[0, 1] == 123


def test_faults_in_a_parquet_file_name_the_row(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", x=list(range(20)), y=[*map(float, range(19)), float("inf")])
    with pytest.raises(InputError, match=r"t\.parquet, row 20, column 'y' \(2nd of 2\): 'inf' is infinity"):
        read_dataset(path, target="y")
    with pytest.raises(InputError, match=r"column 'x' \(1st of 1\) holds list<"):
        read_table(parquet(tmp_path / "lists.parquet", x=[[1], [2]]))
    with pytest.raises(InputError, match="has 0 rows and 1 columns"):
        read_table(parquet(tmp_path / "none.parquet", x=[]))


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:40], lambda data: data[:-4] + b"XXXX", lambda data: b"PAR1" + b"\xff" * 60 + b"PAR1"]
)
def test_a_damaged_parquet_file_is_called_so(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", x=list(range(20)))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=r"t\.parquet is a damaged Parquet file"):
        read_table(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "t.parquet", x=[1, 2])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'contexture\[parquet\]'"):
        read_table(path)


def test_predictions_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    values = np.array([0.1, 1 / 3, -1e-300])
    write_predictions(path, {"line": [2, 3, 4], "prediction": values, "class": ["a,b", 'say "x"', None]})
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["prediction"]) for row in rows] == values.tolist()
    assert [row["class"] for row in rows] == ["a,b", 'say "x"', ""]
    assert [row["line"] for row in rows] == ["2", "3", "4"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before\n")

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_predictions(path, {"y": [1]})
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]
    assert path.read_text() == "before\n"


def test_a_link_keeps_pointing_to_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    write_predictions(tmp_path / "link.csv", {"y": [1]})
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "y\n1\n"


def test_predictions_go_to_files_alone() -> None:
    with pytest.raises(InputError, match="not a plain file"):
        write_predictions(os.devnull, {"y": [1]})
