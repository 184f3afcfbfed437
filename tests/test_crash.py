import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contexture.store.results import read_result

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"),
    reason="kill -9 of forks: this platform has none (test_store_checkpoint.py simulates it)",
)

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A training run killed by SIGKILL in every one of its calls to the disk, resumed and compared each time."""
    folder = tmp_path_factory.mktemp("soak")
    command = [sys.executable, "benchmarks/soak.py", "--every-call", "--steps", "4", "--every", "2"]
    done = subprocess.run(
        [*command, "--folder", str(folder / "runs"), "--output", str(folder / "soak.json")],
        cwd=ROOT,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(entry.name for entry in folder.iterdir()) == ["soak.json"]
    return read_result(folder / "soak.json")


def test_every_killed_run_ends_in_the_bits_of_the_uninterrupted_one(soak: dict[str, Any]) -> None:
    counts = soak["counts"]
    assert counts["runs"] == sum(soak["calls of an uninterrupted run"][0].values())
    assert counts["kills"] >= 12
    assert counts["kills"] >= counts["runs"] - 4  # the record's lines wait by the clock, so a life may make fewer calls
    assert counts["runs with identical bits"] == counts["runs"]
    assert counts["runs with an identical history"] == counts["runs"]


def test_no_killed_run_leaves_a_stray_file(soak: dict[str, Any]) -> None:
    assert soak["counts"]["stray files"] == 0
    assert soak["counts"]["checkpoints beyond two"] == 0


@pytest.mark.parametrize("kind", ["write", "fsync", "rename", "fsync_folder", "remove"])
def test_lives_ended_in_every_kind_of_call(soak: dict[str, Any], kind: str) -> None:
    assert soak["counts"][f"kills in {kind}"] >= 2


def test_lives_ended_inside_a_checkpoint(soak: dict[str, Any]) -> None:
    assert soak["counts"]["kills inside a checkpoint's write"] >= 12


def test_a_resume_that_forgets_the_optimisers_state_is_told_apart(soak: dict[str, Any]) -> None:
    assert soak["counts"]["controls told apart"] == soak["counts"]["controls"] == 1
