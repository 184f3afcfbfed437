"""The GPU benchmark's logic, at toy sizes on a CPU: groups, going on after a stop, tables; and without a GPU."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from contexture.errors import InputError
from contexture.ops import kernels
from contexture.store.results import read_result

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu.py"
linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux alone")
MACHINE = {"copy_gb_s": 3000.0, "matrix_tflop_s": 800.0}


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_without_a_gpu_it_says_so_in_one_sentence(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--only", "delta-rule", "--output", str(tmp_path / "gpu.json")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no CUDA device is at hand" in said
    assert not list(tmp_path.iterdir())


def test_floors_of_linear_attention_and_the_delta_rule(gpu):
    # 8 x 8,192 x 16 rows of four heads of 128 in bf16: 1.074 GB at 3 TB/s.
    shape = (8, 8192, 16, 128)
    linear = gpu.floors("linear-attention", shape, MACHINE)
    assert linear["floor_forward_ms"] == pytest.approx(0.358, abs=5e-4)
    assert linear["floor_both_ms"] == pytest.approx(0.358 * (1 + 7 / 4), abs=1e-3)
    assert gpu.floors("delta-rule", shape, MACHINE)["floor_forward_ms"] == pytest.approx(0.359, abs=5e-4)
    # 2.2 TFLOP at 800 TFLOP/s.
    assert gpu.floors("softmax-attention", shape, MACHINE)["floor_forward_ms"] == pytest.approx(2.75, abs=5e-3)


@linux
@pytest.mark.skipif(not kernels.interpreted(), reason="toy sizes are for the interpreter")
def test_every_group_runs_once_and_a_stopped_run_goes_on(gpu, tmp_path, monkeypatch):
    path = tmp_path / "gpu.json"
    names = ["linear-attention", "softmax", "decode", "training", "cohorts", *gpu.ALONE]
    monkeypatch.setitem(gpu.GROUPS, "training", lambda sizes, machine: list(gpu.training_group(sizes, machine))[:1])
    assert gpu.run(names[:2], gpu.TOY, path, "toy") == 0
    first = read_result(path)
    assert [row["group"] for row in first["rows"]] == names[:2]
    assert gpu.run(names, gpu.TOY, path, "toy") == 0
    found = read_result(path)
    assert found["rows"][:2] == first["rows"]
    assert found["machine"] == first["machine"]
    assert sorted({row["group"] for row in found["rows"]}) == sorted(names)
    assert [row for row in found["rows"] if row["group"] in gpu.ALONE and "failed" in row] == []
    linear = found["rows"][0]
    assert linear["relative_error"] < 1e-2
    assert linear["forward_ms"] < linear["both_ms"]
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text.startswith("toy, torch ")
    assert text.count("\n| ") == 1 + len(found["rows"])


def test_what_failed_is_named_and_measured_again(gpu, tmp_path, monkeypatch):
    calls = []

    def group(sizes, machine):
        def work():
            calls.append(1)
            return {"failed": "OutOfMemoryError: too | large"} if len(calls) == 1 else {"forward_ms": 1.0}

        yield {"side": "one", "shape": [2, 3]}, work

    path = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "GROUPS", {"some": group})
    assert gpu.run(["some"], gpu.TOY, path, "toy") == 1
    assert "failed: OutOfMemoryError: too / large" in path.with_suffix(".md").read_text(encoding="utf-8")
    assert gpu.run(["some"], gpu.TOY, path, "toy") == 0
    assert [row["forward_ms"] for row in read_result(path)["rows"]] == [1.0]
    assert gpu.run(["some"], gpu.TOY, path, "toy") == 0
    assert len(calls) == 2


def test_figures_of_two_devices_do_not_mix(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GROUPS", {})
    gpu.run([], gpu.TOY, tmp_path / "gpu.json", "one")
    with pytest.raises(InputError, match="holds figures of one, not of other"):
        gpu.run([], gpu.TOY, tmp_path / "gpu.json", "other")


def test_the_summary_compares_shape_by_shape(gpu):
    def row(side, shape, taken):
        return {"group": "delta-rule", "side": side, "shape": shape, "forward_ms": taken, "floor_forward_ms": 1.0}

    rows = [
        row("contexture", [1], 2.0),
        row("contexture", [2], 8.0),
        row("flash-linear-attention", [1], 4.0),
        row("flash-linear-attention", [2], 64.0),
    ]
    assert gpu.summary(rows) == [
        "- forward_ms: 4.00 times as fast as flash-linear-attention over 2 shapes.",
        "- forward_ms: 4.00 times the floor over 2 shapes.",
    ]
