"""A table of products that is a band: queries in blocks, each beside the keys of its block and of the window before it.

q: [batch, time, heads, dim]; k, v: [batch, past + time, heads, ...], where query t stands at past + t and sees itself
and the `past` tokens before it; there: [batch, past + time], which of the tokens exist; stretch: [batch, past + time],
the segment of each. Blocks are of equal size, the last one filled up. The work is linear in time, and a block's width
more than the window's at most.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.ops.chunks import split


class Band:
    """Keys and values beside every block of queries, [batch, heads, blocks, dim, span] and [..., span, out]."""

    def __init__(
        self,
        q: Float[Tensor, "batch time heads dim"],
        k: Float[Tensor, "batch past_time heads dim"],
        v: Float[Tensor, "batch past_time heads out"],
        *,
        there: Bool[Tensor, "batch past_time"],
        stretch: Int[Tensor, "batch past_time"],
        block: int,
    ) -> None:
        time, past = q.shape[1], k.shape[1] - q.shape[1]
        tail, span = -time % block, block + past
        self.queries = split(q, block)
        self.keys, self.values = _spans(k, span, block, tail), _spans(v, span, block, tail).mT
        row, column = torch.arange(block, device=q.device).unsqueeze(1), torch.arange(span, device=q.device)
        near = (column >= row) & (column <= row + past)
        # What fills up the last block sees itself, so that its row is finite.
        there = F.pad(there, (0, tail), value=True).unfold(1, span, block)
        stretch = F.pad(stretch, (0, tail), value=-1)
        own = torch.unflatten(stretch[:, past:], 1, (-1, block)).unsqueeze(-1)
        same = own == stretch.unfold(1, span, block).unsqueeze(-2)
        self.hidden = ~(near & there.unsqueeze(-2) & same).unsqueeze(1)

    def logits(self) -> Float[Tensor, "batch heads blocks block span"]:
        """Every query's products with the keys that it sees, minus infinity for the others."""
        return (self.queries @ self.keys).masked_fill(self.hidden, -torch.inf)


def _spans(x: Tensor, span: int, step: int, tail: int) -> Tensor:
    """Stretches of `span` tokens that begin every `step` tokens, [batch, heads, blocks, dim, span]."""
    return F.pad(x, (0, 0, 0, 0, 0, tail)).transpose(1, 2).unfold(2, span, step)
