"""What every kernel's launch needs: tiles, dtypes of products, strides, and packed sequences as ids.

A tile of a head has the next power of two of its size as its width, 16 at least; columns that a head does not have are
masked. Products inside a kernel are of the inputs' dtype with fp32 sums; of fp32 inputs, of three tf32 products each.
"""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from contexture.errors import InputError
from contexture.ops.kernels import LARGEST, interpreted
from contexture.ops.segments import padding, runs
from contexture.ops.triton import interpreter

CHUNK = 64
INTERPRETED = interpreted()
ROOMY = {(8, 0), (9, 0), (10, 0), (10, 3)}
DOTS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


if INTERPRETED:
    interpreter.mend()


def tile(size: int) -> int:
    """The width of the tile that holds `size` columns.

    >>> [tile(size) for size in (1, 16, 65, 256)]
    [16, 16, 128, 256]
    """
    if size > LARGEST:
        raise InputError(f"kernels take heads of up to {LARGEST}, not {size}: split the head, or take the chunked path")
    return max(16, int(triton.next_power_of_2(size)))


def chunk(time: int, largest: int = CHUNK) -> int:
    """How many steps a chunk has: a power of two from 16 to `largest`."""
    return max(16, min(largest, int(triton.next_power_of_2(time))))


@cache
def roomy(device: torch.device) -> bool:
    """Whether a program can have 160 KiB of shared memory: on data-centre GPUs, not on others."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) in ROOMY


def dot(dtype: torch.dtype) -> Any:
    """What the factors of a kernel's products are cast to."""
    return DOTS[dtype]


def rows(x: Tensor) -> Tensor:
    """The tensor itself, or a copy if its last dimension is not contiguous; broadcast dimensions stay as they are."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def ids(segments: Tensor | None) -> Tensor | None:
    """A number for each stretch of equal ids, int32 [batch, time], below zero where a position is padding."""
    if segments is None:
        return None
    found = runs(segments)
    return torch.where(padding(segments), -1 - found, found).to(torch.int32).contiguous()


def handed_in(state: Tensor) -> Tensor:
    """A memory that is handed in, as kernels read it: fp32, its entries side by side."""
    return state.float().contiguous()
