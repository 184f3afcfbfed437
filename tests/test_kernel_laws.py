"""Every kernel keeps the laws of kernels; on Linux none of this may be left out."""

import sys

import pytest

from contexture.ops import kernels
from contexture.testing.kernels import LAWS, check_kernel, ops_with_kernels

KERNELS = ops_with_kernels()
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux alone")


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
