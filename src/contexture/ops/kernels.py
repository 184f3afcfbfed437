"""Which ops have a Triton kernel, and whether it can run here: nothing in this file imports Triton.

The kernel of the op "delta-rule" is the function `delta_rule_triton` of contexture.ops.triton.delta_rule, with the
signature of the op's other paths; a file of that name is all the registration there is. It takes bf16, fp16 and fp32
on a CUDA device, or anywhere in Triton's interpreter (the environment variable TRITON_INTERPRET=1), for heads of up to
256.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

LARGEST = 256
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
OF_ANY_WIDTH = ("selective-scan",)
"""Ops whose inputs end with channels, which a kernel takes some at a time, and not with a head."""


def _module(op: str) -> str:
    return op.replace("-", "_")


@torch.compiler.assume_constant_result
def has_kernel(op: str) -> bool:
    """Whether a kernel was written for this op.

    >>> has_kernel("linear-attention"), has_kernel("mesa")
    (True, False)
    """
    return (Path(__file__).parent / "triton" / f"{_module(op)}.py").is_file()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@torch.compiler.assume_constant_result
def installed() -> bool:
    """Whether Triton can be imported."""
    return _installed()


@torch.compiler.assume_constant_result
def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on any device."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")


def unable(op: str, *, device: str, dtype: torch.dtype, dim: int) -> str:
    """Why the op's kernel cannot run for inputs like these, or nothing if it can.

    >>> unable("mesa", device="cuda", dtype=torch.float32, dim=64)
    'it has no kernel'
    """
    if not has_kernel(op):
        return "it has no kernel"
    if not installed():
        return "triton is not installed: pip install triton (Linux only)"
    if device != "cuda" and not interpreted():
        return f"kernels run on CUDA devices, not on {device!r}, unless TRITON_INTERPRET=1 is set before the start"
    if dtype not in DTYPES:
        return f"kernels take bf16, fp16 and fp32, not {str(dtype).removeprefix('torch.')}"
    if dim > LARGEST and op not in OF_ANY_WIDTH:
        return f"kernels take heads of up to {LARGEST}, not {dim}"
    return ""


@cache
def kernel(op: str) -> Callable[..., Any]:
    """The path "triton" of an op that has a kernel."""
    found: Callable[..., Any] = getattr(
        importlib.import_module(f"contexture.ops.triton.{_module(op)}"), f"{_module(op)}_triton"
    )
    return found
