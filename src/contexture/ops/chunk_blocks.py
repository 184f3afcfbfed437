"""Few chunks at a time through all steps: what the chunked forms of ops with one matrix of memory a head share.

On a CPU what a step leaves behind should still be in the cache when the next one reads it, so that a block of chunks
passes through all steps before the next block begins. Chunks come first, so that each is one piece of memory:
[chunks, batch, heads, size, dim].
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.ops.chunks import masks, runs_on_cpu

ROWS = 4096
"""How many rows, over batch, heads and time, a CPU takes at a time."""


class Factors(NamedTuple):
    """What passes, as factors of 0..1: between two rows of a chunk, within: [chunks, batch, heads or 1, size, size];
    from the memory to a row and from a row to the chunk's end, reads, writes: [..., size, 1]; from the memory to the
    chunk's end, keeps: [..., 1, 1]."""

    within: Tensor
    reads: Tensor
    writes: Tensor
    keeps: Tensor


Mix = Callable[[Sequence[Tensor], Factors | None, Tensor | None], tuple[Tensor, Tensor]]


def in_blocks(
    mix: Mix, rows: Sequence[Tensor], state: Tensor | None, *, size: int, segments: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The outputs, [batch, time, heads, out] in `dtype`, and the state after the last chunk.

    `mix` is given a block of all rows, what packed sequences forbid in it, and the state before it; it returns outputs
    laid out as rows are, and the state after it. rows: [batch, time, heads, dim], cast to `dtype`, the last chunk
    filled up with zeros.

    >>> x = torch.ones(1, 5, 1, 1)
    >>> out, last = in_blocks(lambda rows, _, s: (rows[0] + s, s + rows[0].sum()), [x], x.sum(), size=2, segments=None,
    ...                       dtype=x.dtype)
    >>> out.flatten().tolist(), float(last)
    ([6.0, 6.0, 6.0, 6.0, 6.0], 10.0)
    """
    batch, time, heads = rows[0].shape[:3]
    chunks = max(1, ROWS // (size * batch * heads)) if runs_on_cpu(rows[0]) else -(-time // size)
    blocks = zip(*(torch.split(x, chunks * size, dim=1) for x in rows), strict=True)
    packed = None if segments is None else _packed(segments, size, dtype)
    outputs = []
    for n, block in enumerate(blocks):
        factors = None if packed is None else Factors(*(x[n * chunks : (n + 1) * chunks] for x in packed))
        out, state = mix([_chunks(x.to(dtype), size) for x in block], factors, state)
        outputs.append(out.permute(1, 0, 3, 2, 4).flatten(1, 2))
    assert state is not None
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1))[:, :time], state


def _chunks(x: Tensor, size: int) -> Tensor:
    """[batch, time, heads, dim] to [chunks, batch, heads, size, dim], the last chunk filled up with zeros."""
    rest = -x.shape[1] % size
    x = F.pad(x, (0, 0, 0, 0, 0, rest)) if rest else x
    return torch.unflatten(x, 1, (-1, size)).permute(1, 0, 3, 2, 4).contiguous()


def _packed(segments: Tensor, size: int, dtype: torch.dtype) -> Factors:
    """What packed sequences forbid."""
    mask = masks(segments, size, dtype)
    return Factors(*(x.movedim(2, 0) for x in (mask.within, mask.reads, mask.writes, mask.keeps)))


def scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    """x * factor, or x where there is no factor."""
    return x if factor is None else x * factor


def add_to(added: Tensor, left: Tensor, right: Tensor, *, sign: int = 1) -> Tensor:
    """added + sign * left @ right, written over `added`."""
    added.flatten(0, -3).baddbmm_(left.flatten(0, -3), right.flatten(0, -3), alpha=sign)
    return added
