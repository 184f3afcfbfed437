"""Loading tiles: rows of one head of a tensor [batch, time, heads, columns] that lies in memory as it likes."""

import triton
import triton.language as tl
from torch import Tensor


def strides_of(x: Tensor) -> tuple[int, int, int]:
    """How far apart rows of the batch, steps of time and heads lie; columns lie side by side."""
    return x.stride(0), x.stride(1), x.stride(2)


@triton.jit
def load_rows(ptr, strides, row, head, t, d, mask):
    """Columns d of one head at the times t, [len(t), len(d)], zero where masked."""
    at = row * strides[0] + head * strides[2] + t[:, None].to(tl.int64) * strides[1] + d[None, :]
    return tl.load(ptr + at, mask=mask, other=0.0)
