"""Which ops have a Triton kernel, and whether it can run here: nothing in this file imports Triton.

The kernel of the op "delta-rule" is the function `delta_rule_triton` of contexture.ops.triton.delta_rule, with the
signature of the op's other paths; a file of that name is all the registration there is. It takes bf16, fp16 and fp32
on a CUDA device, or anywhere in Triton's interpreter (the environment variable TRITON_INTERPRET=1), for heads of up to
256.
"""

import ast
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import opaque

LARGEST = 256
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
OF_ANY_WIDTH = ("selective-scan",)
"""Ops whose inputs end with channels, which a kernel takes some at a time, and not with a head."""


def _module(op: str) -> str:
    return op.replace("-", "_")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_kernel(op: str) -> bool:
    """Whether a kernel was written for this op.

    >>> has_kernel("linear-attention"), has_kernel("mesa")
    (True, False)
    """
    return (Path(__file__).parent / "triton" / f"{_module(op)}.py").is_file()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def installed() -> bool:
    """Whether Triton can be imported."""
    return _installed()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
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
    """The path "triton" of an op that has a kernel; it runs on the device where the first input lies.

    Triton launches on the current device, whatever its tensors say; backward, autograd has made that the right one.
    """
    found: Callable[..., Any] = getattr(
        importlib.import_module(f"contexture.ops.triton.{_module(op)}"), f"{_module(op)}_triton"
    )

    def on_device(first: Tensor, *rest: Any, **keywords: Any) -> Any:
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            return found(first, *rest, **keywords)

    return on_device


def in_graph(
    op: str, *tensors: Tensor, initial_state: Any, segments: Tensor | None, **settings: Any
) -> tuple[Any, ...]:
    """The path "triton" as one node of a compiled graph; InputError for a state of several tensors."""
    if not isinstance(initial_state, Tensor | None):
        raise InputError(f"the kernel of {op!r} cannot be compiled with an initial state of several tensors")
    rest = [x for x in (initial_state, segments) if x is not None]
    # Text that the compiler can follow; json is beyond it.
    text = f"{op};{len(tensors)};{int(initial_state is not None)}"
    for name, value in settings.items():
        text += f";{name}={value!r}"
    return tuple(opaque.call("kernel", [*tensors, *rest], text))


def _taken_apart(tensors: Sequence[Tensor], text: str) -> tuple[str, Sequence[Tensor], dict[str, Any]]:
    """The op, its inputs and its keywords, of what `in_graph` put together."""
    op, count, has_state, *settings = text.split(";")
    inputs, rest = tensors[: int(count)], list(tensors[int(count) :])
    keywords = {"initial_state": rest.pop(0) if has_state == "1" else None, "segments": rest[0] if rest else None}
    named = (setting.split("=", 1) for setting in settings)
    return op, inputs, keywords | {name: ast.literal_eval(value) for name, value in named}


def _run_kernel(tensors: Sequence[Tensor], text: str) -> Sequence[Tensor]:
    op, inputs, keywords = _taken_apart(tensors, text)
    results: Sequence[Tensor] = kernel(op)(*inputs, **keywords)
    return results


def _run_shapes(tensors: Sequence[Tensor], text: str) -> Sequence[Tensor]:
    """Results of the same shapes, from the fast path in torch: the definition would trace every step."""
    op, inputs, keywords = _taken_apart(tensors, text)
    paths = importlib.import_module(f"contexture.ops.{_module(op)}").OP.paths
    fast = next(path for name, path in paths.items() if name != "reference")
    out, state = fast(*inputs, **keywords)
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (out, state)]


opaque.register("kernel", _run_kernel, _run_shapes)
