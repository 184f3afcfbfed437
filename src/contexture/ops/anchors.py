"""Where the inner gradients of a memory are taken: every sequence is cut into chunks, each with an anchor.

The chunk is part of such a mechanism: its gradients are taken at the anchor, the memory before the chunk's first token.
A sequence may begin in the middle of a chunk, after `offset` of its tokens were seen by an earlier call.

offset: int64 [batch]; places: int64 [batch, time], each token's place in its chunk.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from contexture.ops.segments import positions, runs


def places(
    time: int, chunk: int, offset: Int[Tensor, " batch"], segments: Int[Tensor, "batch time"] | None = None
) -> Int[Tensor, "batch time"]:
    """The place of every token in its chunk; the offset belongs to the first segment.

    >>> places(5, 2, torch.tensor([0, 1])).tolist()
    [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]
    """
    if segments is None:
        return (offset.unsqueeze(1) + torch.arange(time, device=offset.device)) % chunk
    return (positions(segments) + offset.unsqueeze(1) * (runs(segments) == 0)) % chunk


def no_offset(batch: int, *, device: torch.device | str) -> Int[Tensor, " batch"]:
    """Every sequence at the start of a chunk."""
    return torch.zeros(batch, dtype=torch.int64, device=device)
