import json
import math
from pathlib import Path
from typing import Any

import pytest

from contexture.errors import InputError
from contexture.store import json_text
from contexture.store.faults import FaultyDisk, SimulatedCrash
from contexture.store.record import RunRecord, read_record
from contexture.store.results import read_result, write_result


def steps(path: Path, **options: Any) -> list[int]:
    return [line["step"] for line in read_record(path, **options)]


def test_what_was_appended_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "run" / "record.jsonl"
    lines = [{"step": 1, "loss": 0.1 + 0.2, "who": "é\ud800"}, {"step": 2, "loss": -0.0, "big": 2**80, "none": None}]
    with RunRecord(path) as record:
        for line in lines:
            record.append(line)
        assert read_record(path) == lines
    assert str(read_record(path)[1]["loss"]) == "-0.0"


def test_values_that_are_not_finite_survive_in_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    with RunRecord(path) as record:
        record.append({"step": 1, "loss": [math.nan, math.inf, -math.inf]})
    values = read_record(path)[0]["loss"]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(("line", "place"), [({"a": {1}}, "a set at a"), ({"a": [{"b": b""}]}, "bytes at a[0].b")])
def test_what_json_cannot_hold_is_named(tmp_path: Path, line: dict[str, Any], place: str) -> None:
    with RunRecord(tmp_path / "record.jsonl") as record:
        with pytest.raises(InputError) as caught:
            record.append(line)
        record.append({"step": 1})
    assert place in str(caught.value)
    assert steps(tmp_path / "record.jsonl") == [1]


@pytest.mark.parametrize("key", [1, "$float"])
def test_keys_are_strings_that_mean_nothing_else(key: Any) -> None:
    with pytest.raises(InputError, match="keys are strings"):
        json_text.dumps({key: 1}, what="it")


def test_a_line_may_wait_only_if_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    disk = FaultyDisk()
    with RunRecord(path, every=3600.0, disk=disk) as record:
        record.append({"step": 1}, durable=False)
        record.append({"step": 2}, durable=False)
        assert (steps(path), disk.calls.count("write")) == ([], 0)
        record.append({"step": 3})
        assert (steps(path), disk.calls.count("write")) == ([1, 2, 3], 1)
        record.append({"step": 4}, durable=False)
    assert steps(path) == [1, 2, 3, 4]


def test_waiting_ends_after_the_time_given(tmp_path: Path) -> None:
    with RunRecord(tmp_path / "record.jsonl", every=0.0) as record:
        record.append({"step": 1}, durable=False)
        assert steps(tmp_path / "record.jsonl") == [1]


@pytest.mark.parametrize("tail", [b"{", b'{"step": 3, "loss": 0.', b'{"step": 3}', b"\x00\x00"])
def test_a_torn_last_line_is_cut_at_reopening_and_said(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail)
    said: list[str] = []
    assert steps(path) == [1, 2]
    with RunRecord(path, report=said.append) as record:
        record.append({"step": 3})
    assert steps(path) == [1, 2, 3]
    assert len(said) == 1
    assert f"its {len(tail)} bytes are dropped" in said[0]


@pytest.mark.parametrize("damaged", [b'{"step": 2', b"[2]", b"", b"\xff\xfe", b'{"loss": NaN}'])
def test_a_damaged_line_before_the_end_is_named_by_its_number(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "record.jsonl"
    before = b'{"step": 1}\n' + damaged + b'\n{"step": 3}\n'
    path.write_bytes(before)
    with pytest.raises(InputError, match="line 2 is damaged"):
        read_record(path)
    with pytest.raises(InputError, match="line 2 is damaged"):
        RunRecord(path)
    assert path.read_bytes() == before


def test_a_missing_record_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_record(tmp_path / "record.jsonl")


def test_only_one_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    with RunRecord(path) as record:
        with pytest.raises(InputError, match="being written by another process"):
            RunRecord(path)
        record.append({"step": 1})
    with RunRecord(path) as record:
        record.append({"step": 2})
    assert steps(path) == [1, 2]


def test_a_resume_supersedes_later_lines_and_erases_none(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    with RunRecord(path) as record:
        record.append({"event": "started"})
        for step in (1, 2, 3):
            record.append({"step": step, "try": 1})
        record.resumed(1)
        for step in (2, 3):
            record.append({"step": step, "try": 2})
        record.resumed(2)
        record.append({"step": 3, "try": 3})
    assert read_record(path) == [
        {"event": "started"},
        {"step": 1, "try": 1},
        {"event": "resumed", "step": 1},
        {"step": 2, "try": 2},
        {"event": "resumed", "step": 2},
        {"step": 3, "try": 3},
    ]
    assert len(read_record(path, superseded=True)) == 9


def append_all(path: Path, disk: FaultyDisk, acknowledged: list[int]) -> None:
    with RunRecord(path, disk=disk, report=lambda _: None) as record:
        for step in range(len(acknowledged), 4):
            record.append({"step": step})
            acknowledged.append(step)


def test_no_acknowledged_line_is_lost_wherever_the_process_dies(tmp_path: Path) -> None:
    counting = FaultyDisk()
    append_all(tmp_path / "whole.jsonl", counting, [])
    for at in range(len(counting.calls)):
        path = tmp_path / f"{at}.jsonl"
        acknowledged: list[int] = []
        with pytest.raises(SimulatedCrash):
            append_all(path, FaultyDisk(at=at, fault="crash"), acknowledged)
        found = steps(path) if path.exists() else []
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) <= len(acknowledged) + 1
        with RunRecord(path, report=lambda _: None) as record:
            record.append({"step": 9})
        assert steps(path) == [*found, 9]


def test_a_refused_append_leaves_no_torn_line_and_the_line_waits(tmp_path: Path) -> None:
    for at in (0, 1):
        path = tmp_path / f"{at}.jsonl"
        with RunRecord(path) as record:
            record.append({"step": 1})
            record._disk = FaultyDisk(at=at)
            with pytest.raises(OSError, match="No space left"):
                record.append({"step": 2, "long": "x" * 100})
            assert path.read_bytes() == b'{"step":1}\n'
            record.append({"step": 3})
        assert steps(path) == [1, 2, 3]


def test_a_result_comes_back_bit_for_bit_under_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "results" / "soak.json"
    document = {"task": "diabetes", "value": [0.1 + 0.2, 5e-324, 1e308, -0.0, 1 / 3], "n": 3}
    write_result(path, document)
    assert read_result(path) == {"schema": 1, **document}
    assert [entry.name for entry in path.parent.iterdir()] == ["soak.json"]
    write_result(path, read_result(path) | {"n": 4})
    assert read_result(path)["n"] == 4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_result_holds_finite_numbers_only(tmp_path: Path, value: float) -> None:
    path = tmp_path / "soak.json"
    write_result(path, {"value": 1.0})
    with pytest.raises(InputError, match=r"at rows\[1\]\.loss: only finite"):
        write_result(path, {"rows": [{"loss": 0.0}, {"loss": value}]})
    assert read_result(path)["value"] == 1.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"schema": 1, "a": NaN}', "NaN is not JSON"),
        ("[1]", "has schema None"),
        ('{"schema": 2}', "has schema 2, but this program reads 1"),
    ],
)
def test_a_foreign_result_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "it.json").write_text(text)
    with pytest.raises(InputError, match=why):
        read_result(tmp_path / "it.json")


def test_a_result_of_another_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="would have schema 2"):
        write_result(tmp_path / "it.json", {"schema": 2})
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_result(tmp_path / "it.json")
