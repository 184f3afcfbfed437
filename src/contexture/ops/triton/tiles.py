"""Which part of which head a program takes, and its rows of a tensor [batch, time, heads, columns], which may lie in
memory as they like."""

import triton
import triton.language as tl
from torch import Tensor


def strides_of(x: Tensor) -> tuple[int, int, int]:
    """How far apart rows of the batch, steps of time and heads lie; columns lie side by side."""
    return x.stride(0), x.stride(1), x.stride(2)


@triton.jit
def part_and_unit(parts):
    """A program's part, int32, and its unit (a head of a row of the batch), int64, of `parts` to a unit.

    All programs stand along the first axis of the grid: the others end at 65,535, and batches of cohorts do not.
    Parts of a unit are neighbours there, so that what they all read is in the cache.
    """
    at = tl.program_id(0)
    return at % parts, (at // parts).to(tl.int64)


@triton.jit
def load_rows(ptr, strides, row, head, t, d, mask):
    """Columns d of one head at the times t, [len(t), len(d)], zero where masked."""
    at = row * strides[0] + head * strides[2] + t[:, None].to(tl.int64) * strides[1] + d[None, :]
    return tl.load(ptr + at, mask=mask, other=0.0)
