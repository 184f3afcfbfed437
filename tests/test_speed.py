import json
import re
from dataclasses import replace

import pytest
import torch

from contexture.cli import main
from contexture.discovery import find
from contexture.errors import InputError
from contexture.evaluation.speed import Shape, Speed, Timing, measure_speed, peak_bytes
from contexture.mixers.delta_rule import DeltaRule
from contexture.mixers.linear_attention import LinearAttention
from contexture.mixers.row_attention import RowAttention
from contexture.mixers.softmax import SoftmaxAttention
from contexture.reports.speed import figure, grid, markdown, ordered, remarks

SMALL = Shape(batch=1, num_heads=2, dim=4)
TWO = {"softmax": SoftmaxAttention, "delta-rule": DeltaRule}


@pytest.fixture(scope="module")
def speed() -> Speed:
    return measure_speed(TWO, lengths=(16, 8), shape=SMALL, budget=0.0)


def test_every_mixer_is_measured_at_every_length(speed):
    assert speed.lengths == (8, 16)
    assert [(t.name, t.length) for t in speed.timings] == [(name, n) for name in TWO for n in (8, 16)]
    assert all(t.forward > 0 and t.forward_backward > 0 and t.decode > 0 and not t.reason for t in speed.timings)


def test_state_is_that_of_one_sequence(speed):
    # Softmax keeps 16 keys and values of 8 numbers, and a position of 8 bytes.
    assert speed.of("softmax", dtype="fp32", length=16).state_bytes == 2 * 16 * 8 * 4 + 8
    # Two heads keep a 4 x 4 memory each, and three inputs of a convolution over 24 channels.
    assert speed.of("delta-rule", dtype="fp32", length=8).state_bytes == (2 * 16 + 3 * 24) * 4


def test_peak_counts_what_is_held_at_once_and_neither_views_nor_inputs():
    x = torch.ones(1000)

    def doubled_twice():
        first = x.view(10, 100).T * 2
        second = first + 1
        del first
        return second + 1

    assert peak_bytes(doubled_twice) == 8000
    assert peak_bytes(lambda: x.view(10, 100).T) == 0
    assert peak_bytes(lambda: x.clone().mul_(2)) == 4000


def test_peak_of_a_table_of_scores_grows_with_its_square(speed):
    found = measure_speed({"softmax": SoftmaxAttention}, lengths=(64, 128), shape=SMALL, budget=0.0)
    linear = measure_speed({"linear": LinearAttention}, lengths=(128, 256), shape=SMALL, budget=0.0)
    small, large = (linear.of("linear", dtype="fp32", length=n).peak_bytes for n in (128, 256))
    assert small < large < 2.5 * small
    assert found.of("softmax", dtype="fp32", length=64).peak_bytes > 0


@pytest.mark.parametrize("name", ["performer", "aft-full", "masked-mixer"])
def test_fixed_weights_and_learned_positions_are_no_obstacle(name):
    found = measure_speed({name: find(name, "mixers")}, lengths=(1100,), shape=SMALL, budget=0.0)
    assert found.of(name, dtype="fp32", length=1100).decode > 0


class Broken(SoftmaxAttention):
    """Fails on long sequences."""

    def forward(self, x, *, segments=None):
        if x.shape[1] > 8:
            raise ValueError("too long for me")
        return super().forward(x, segments=segments)


def test_a_fault_is_named_and_costs_no_other_mixer():
    found = measure_speed({"mine": Broken, **TWO}, lengths=(8, 16), shape=SMALL, budget=0.0)
    assert found.of("mine", dtype="fp32", length=8).forward_backward > 0
    reason = found.of("mine", dtype="fp32", length=16).reason
    assert re.fullmatch(r"ValueError in test_speed.py, line \d+: too long for me", reason)
    assert remarks(found, "fp32") == [f"left out: mine at 16 ({reason})"]
    assert found.of("delta-rule", dtype="fp32", length=16).forward > 0


def test_what_would_take_too_long_is_left_out_with_its_reason():
    found = measure_speed(TWO, lengths=(8, 4096), shape=SMALL, budget=0.0, longest_call=1e-9)
    assert all("would take about" in found.of(name, dtype="fp32", length=4096).reason for name in TWO)


def test_the_table_has_a_row_for_each_mixer_the_fastest_first(speed):
    headings, rows = grid(speed, "fp32")
    assert headings == ["mixer", "8", "16", "growth", "x softmax", "token", "token x", "state", "peak"]
    assert [row[0] for row in rows] == ordered(speed, "fp32")
    assert next(row for row in rows if row[0] == "softmax")[4] == "1.00"
    lines = markdown(speed, "fp32").splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == 10 for line in lines)


def test_growth_is_a_power_of_length_between_the_two_longest(speed):
    def timed(length: int, seconds: float, decode: float) -> Timing:
        return Timing(name="softmax", dtype="fp32", length=length, forward_backward=seconds, decode=decode)

    timings = (timed(4, 0.9, 0.02), timed(8, 0.1, 0.03), timed(32, 1.6, 0.05))
    headings, (row,) = grid(replace(speed, lengths=(4, 8, 32), timings=timings), "fp32")
    values = dict(zip(headings, row, strict=True))
    assert (values["growth"], values["token x"]) == ("2.00", "2.50")
    headings, (row,) = grid(replace(speed, lengths=(4,), timings=timings[:1]), "fp32")
    values = dict(zip(headings, row, strict=True))
    assert (values["growth"], values["token x"]) == ("-", "-")


def test_the_picture_names_every_mixer_and_length(speed):
    drawn = figure(speed)
    assert all(f">{name}<" in drawn for name in TWO)
    assert ">8 tokens<" in drawn
    assert ">16 tokens<" in drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixers": {"row-attention": RowAttention}}, "sees whole sets"),
        ({"mixers": TWO, "dtypes": ("fp8",)}, "no dtype is named 'fp8'"),
        ({"mixers": TWO, "lengths": (0, 8)}, "lengths are whole numbers from 1 on"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        measure_speed(**options)


def test_the_command_prints_a_document_and_writes_files(capsys, tmp_path):
    result, picture, tables = tmp_path / "speed.json", tmp_path / "speed.svg", tmp_path / "speed.md"
    given = ["bench", "mixers", "--mixers", "softmax,linear-attention", "--length", "8", "--json"]
    assert main([*given, "-o", str(result), "--figure", str(picture), "--markdown", str(tables)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == 1
    assert [row["name"] for row in printed["rows"]] == ["softmax", "linear-attention"]
    assert json.loads(result.read_text()) == printed
    assert picture.read_text().startswith("<?xml")
    assert "| linear-attention |" in tables.read_text()
    assert "2 heads" not in tables.read_text()
    assert "batch 2, 4 heads of 64" in tables.read_text()


def test_rows_of_other_mixers_are_kept_if_measured_alike(capsys, tmp_path):
    output = tmp_path / "speed.json"
    measured = ["bench", "mixers", "--length", "8,16", "-o", str(output), "--mixers"]
    assert main([*measured, "pooling,lmu"]) == 0
    old = {(row["name"], row["length"]): row for row in json.loads(output.read_text())["rows"]}
    assert main([*measured, "lmu,aaren", "--keep"]) == 0
    document = json.loads(output.read_text())
    new = {(row["name"], row["length"]): row for row in document["rows"]}
    assert [one["name"] for one in document["mixers"]] == ["pooling", "lmu", "aaren"]
    assert sorted(new) == [(name, n) for name in ("aaren", "lmu", "pooling") for n in (8, 16)]
    assert [new["pooling", n] == old["pooling", n] for n in (8, 16)] == [True, True]
    assert new["lmu", 8] != old["lmu", 8]
    assert document["command"].count(" && ") == 1
    before = output.read_bytes()
    assert main([*measured, "lmu", "--keep", "--threads", "2"]) == 2
    assert "rows of threads 1 cannot be kept beside those of 2" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert main(["bench", "mixers", "--keep"]) == 2


def test_the_command_refuses_what_does_not_exist(capsys):
    assert main(["bench", "mixers", "--mixers", "sofmax", "--length", "8"]) == 2
    assert "did you mean softmax" in capsys.readouterr().err
