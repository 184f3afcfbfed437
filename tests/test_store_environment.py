import subprocess
import sys

import pytest
import torch

from contexture.store import json_text
from contexture.store.environment import environment, same_for_resume


def test_it_describes_this_machine_in_plain_json() -> None:
    here = environment()
    assert json_text.loads(json_text.dumps(here, what="it", finite=True)) == here
    assert here["torch"] == torch.__version__
    assert here["threads"] == torch.get_num_threads()
    assert here["python"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert all(here[name] for name in ("system", "architecture", "processor", "cores", "instructions", "contexture"))
    if "avx512" in here["instructions"].lower() and sys.platform == "linux":
        assert "avx512f" in here["flags"]


def test_the_same_place_has_no_difference() -> None:
    assert same_for_resume(environment(), environment()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threads": 61}, "number of threads: "),
        ({"torch": "2.0.0"}, "torch: "),
        ({"torch_build": "abc"}, "build of torch: "),
        ({"processor": "Abacus"}, "processor: Abacus there, "),
        ({"instructions": "DEFAULT"}, "instruction set of the kernels: DEFAULT there, "),
        (
            {"settings": {"MKL_CBWR": "AVX2"}},
            "environment variables for kernels: {'MKL_CBWR': 'AVX2'} there, none here",
        ),
        ({"device": "NVIDIA H100"}, "device: NVIDIA H100 there, cpu here"),
    ],
)
def test_what_decides_the_bits_is_named(change: dict[str, object], words: str) -> None:
    (difference,) = same_for_resume(environment() | change, environment())
    assert words in difference


@pytest.mark.parametrize("change", [{"commit": "abc"}, {"memory_gib": 1.0}, {"cores": 3}, {"system": "Linux 1.0"}])
def test_what_does_not_decide_the_bits_is_ignored(change: dict[str, object]) -> None:
    assert same_for_resume(environment() | change, environment()) == []


def test_the_number_of_threads_is_read_at_the_call() -> None:
    before = environment()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert same_for_resume(before, environment()) == [f"number of threads: {threads} there, {threads + 1} here"]
    finally:
        torch.set_num_threads(threads)


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, contexture.store.environment as e, contexture.store.record; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
