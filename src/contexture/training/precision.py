"""In which precision a training step computes: "fp32", "bf16" for activations alone, "fp64", or "auto".

"auto" is bf16 where the processor multiplies bf16 by instructions of its own (AMX, AVX512-BF16, Arm's BF16 extension)
and fp32 elsewhere, where a product in bf16 is emulated and takes some fifty times as long as one in fp32. It goes by
the instruction sets alone and never by a measurement, so that a run resumed on the same machine computes alike.
"""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from contexture.errors import InputError
from contexture.store.environment import instruction_sets

Precision = Literal["auto", "fp32", "bf16", "fp64"]
PRECISIONS = ("auto", "fp32", "bf16", "fp64")
BF16_PRODUCTS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


def require_precision(name: str) -> None:
    """InputError unless `name` is a precision."""
    if name not in PRECISIONS:
        raise InputError(f"no precision is named {name!r}: there are {', '.join(PRECISIONS)}")


def resolve(precision: Precision) -> Literal["fp32", "bf16", "fp64"]:
    """What "auto" means on this processor; the others mean themselves.

    >>> resolve("fp32")
    'fp32'
    """
    if precision != "auto":
        return precision
    return "bf16" if BF16_PRODUCTS.intersection(instruction_sets()) else "fp32"


def autocast(precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass of this precision runs on a CPU."""
    return torch.autocast("cpu", torch.bfloat16, enabled=resolve(precision) == "bf16")
