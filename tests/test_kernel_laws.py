"""Every kernel keeps the laws of kernels; on Linux none of this may be left out."""

import os
import subprocess
import sys

import pytest
import torch

from contexture.ops import kernels
from contexture.testing import LawError
from contexture.testing.kernels import LAWS, check_kernel, ops_with_kernels
from kernel_toys import linux

KERNELS = ops_with_kernels()
pytestmark = linux


def test_every_kernel_is_found():
    assert sorted(KERNELS) == [
        "cached-memories",
        "decayed-linear-attention",
        "delta-rule",
        "gated-delta-rule",
        "gated-linear-attention",
        "landmark-attention",
        "linear-attention",
        "native-hybrid-attention",
        "omega",
        "routed-linear-attention",
        "selective-scan",
        "titans",
    ]


def test_triton_is_here():
    assert kernels.installed()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", KERNELS)
def test_laws(name, law):
    check_kernel(KERNELS[name], laws=(law,))


def test_a_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path):
    command = [sys.executable, "-m", "contexture.testing.compilation", "--dim", "16", "--time", "16"]
    surroundings = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run([*command, "linear-attention"], capture_output=True, text=True, env=surroundings, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("linear-attention _scan: ") == 4
    assert done.stdout.count(" 0 bytes spilled") == 4


def previous_position(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    return out.roll(1, 1), state


def half_precision(right, q, k, v, **rest):
    out, state = right(q, k, v, **rest)
    return out.to(torch.float16).to(v.dtype), state


def gradient_of_keys_scaled(right, q, k, v, **rest):
    return right(q, 1.01 * k - 0.01 * k.detach(), v, **rest)


def forgets_the_state(right, q, k, v, *, initial_state, segments=None):
    return right(q, k, v, initial_state=None, segments=segments)


def returns_the_initial_state(right, q, k, v, *, initial_state, segments=None):
    out, state = right(q, k, v, initial_state=initial_state, segments=segments)
    return out, state if initial_state is None else initial_state


def gradient_of_the_state_missing(right, q, k, v, *, initial_state, segments=None):
    return right(q, k, v, initial_state=None if initial_state is None else initial_state.detach(), segments=segments)


def ignores_segments(right, q, k, v, *, initial_state, segments=None):
    return right(q, k, v, initial_state=initial_state)


def reads_padding(right, q, k, v, *, initial_state, segments=None):
    whole = None if segments is None else segments.where(segments >= 0, 99)
    return right(q, k, v, initial_state=initial_state, segments=whole)


def keeps_the_state_where_a_change_meets_an_edge(right, q, k, v, *, initial_state, segments=None):
    if segments is not None:
        segments = segments.clone()
        segments[1, 64:67] = segments[1, 63]
    return right(q, k, v, initial_state=initial_state, segments=segments)


def as_if_contiguous(x):
    return x.as_strided(x.shape, torch.empty(x.shape).stride())


def queries_as_if_contiguous(right, q, k, v, **rest):
    return right(as_if_contiguous(q), k, v, **rest)


def keys_as_if_contiguous(right, q, k, v, **rest):
    return right(q, as_if_contiguous(k), v, **rest)


def values_as_if_contiguous(right, q, k, v, **rest):
    return right(q, k, as_if_contiguous(v), **rest)


MUTANTS = {
    "values": (previous_position, half_precision, gradient_of_keys_scaled),
    "carried state": (forgets_the_state, returns_the_initial_state, gradient_of_the_state_missing),
    "segments": (ignores_segments, reads_padding, keeps_the_state_where_a_change_meets_an_edge),
    "layouts": (queries_as_if_contiguous, keys_as_if_contiguous, values_as_if_contiguous),
}


def test_every_law_has_three_mutants():
    assert list(MUTANTS) == list(LAWS)
    assert all(len(mutants) == 3 for mutants in MUTANTS.values())


@pytest.mark.parametrize(("law", "mutant"), [(law, mutant) for law, three in MUTANTS.items() for mutant in three])
def test_mutants_are_caught(law, mutant, monkeypatch):
    right = kernels.kernel("linear-attention")
    monkeypatch.setattr(kernels, "kernel", lambda name: lambda *inputs, **rest: mutant(right, *inputs, **rest))
    with pytest.raises(LawError) as caught:
        check_kernel(KERNELS["linear-attention"], laws=(law,))
    assert caught.value.law == law
