"""Where kernels run in the tests, and which ops have a fused step."""

import sys

import pytest

from contexture.ops import kernels

linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux alone")
DEVICE = "cpu" if kernels.interpreted() else "cuda"
STEPS = (
    "linear-attention",
    "decayed-linear-attention",
    "gated-linear-attention",
    "delta-rule",
    "gated-delta-rule",
    "selective-scan",
)
