"""Products of decays inside a chunk, by a tree of halves: no quotient, no cumulative sum, nothing that can overflow.

Step t multiplies what was written before it by a_t in [0, 1]. What position i reads of position j <= i is

    P_ij = sum_d q_id k_jd a_{j+1,d} ... a_id

A chunk is cut into blocks of one row, and neighbouring blocks are joined until one is left. While blocks are apart,
`reads` holds q_i times the decays from its block's start up to i, and `writes` k_j times the decays after j up to its
block's end; so two neighbours fill the corner of P in which the right one reads the left one by one product, and then
the right one's reads are multiplied by the left one's total decay and the left one's writes by the right one's. Every
factor is at most one: a decay of zero (a log-decay of -inf) is exact, and is how a segment ends.

q, k, a: [chunks, size, dim], or a: [chunks, size, 1]; P: [chunks, size, size]; total: [chunks, dim].
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.ops.segments import runs


class Decayed(NamedTuple):
    """P and, for the whole chunk, q times all decays up to it, k times all decays after it, and all decays' product."""

    scores: Tensor
    reads: Tensor
    writes: Tensor
    total: Tensor


class Pairs(NamedTuple):
    """`count` pairs of neighbouring blocks from row `start` on, the left ones of `left` rows, the right of `right`."""

    start: int
    count: int
    left: int
    right: int

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The left and the right blocks of [chunks, size, dim] as views, [chunks, count, rows, dim]."""
        width = self.left + self.right
        blocks = torch.unflatten(x[:, self.start : self.start + self.count * width], 1, (self.count, width))
        return blocks[:, :, : self.left], blocks[:, :, self.left :]

    def corners(self, scores: Tensor) -> Tensor:
        """Where the right blocks read the left ones, [chunks, count, right, left], a view of [chunks, size, size]."""
        width = self.left + self.right
        rows = slice(self.start, self.start + self.count * width)
        square = torch.unflatten(torch.unflatten(scores[:, rows, rows], 2, (self.count, width)), 1, (self.count, width))
        return square[:, :, self.left :, :, : self.left].diagonal(dim1=1, dim2=3).movedim(-1, 1)

    def totals(self, total: Tensor) -> tuple[Tensor, Tensor]:
        """The left and the right blocks' decays, [chunks, count, 1, dim], from those of all blocks."""
        first = self.start // self.left
        both = torch.unflatten(total[:, first : first + 2 * self.count], 1, (self.count, 2))
        return both[:, :, :1], both[:, :, 1:]


def levels(size: int) -> Iterator[tuple[Pairs, ...]]:
    """The pairs to be joined, from single rows upwards; the last right block of a level may be shorter.

    >>> [[tuple(pairs) for pairs in level] for level in levels(5)]
    [[(0, 2, 1, 1)], [(0, 1, 2, 2)], [(0, 1, 4, 1)]]
    """
    rows = 1
    while rows < size:
        count = size // (2 * rows)
        rest = size - 2 * rows * count - rows
        level = (Pairs(0, count, rows, rows), Pairs(2 * rows * count, 1, rows, rest))
        yield tuple(pairs for pairs in level if pairs.count and pairs.right > 0)
        rows *= 2


def grow(total: Tensor, level: tuple[Pairs, ...]) -> Tensor:
    """The decays of the joined blocks; a last block without a neighbour stays as it is."""
    joined = [torch.mul(*pairs.totals(total)).squeeze(2) for pairs in level]
    used = 2 * sum(pairs.count for pairs in level)
    return torch.cat((*joined, total[:, used:]), 1)


def decayed_products(q: Tensor, k: Tensor, a: Tensor) -> Decayed:
    """P and the whole chunk's reads and writes. Works in place on fresh memory: it has no gradient of its own."""
    chunks, size, _ = q.shape
    scores = q.new_zeros(chunks, size, size)
    scores.diagonal(dim1=1, dim2=2).copy_((q * k).sum(-1))
    reads, writes, total = q * a, k.clone(), a
    for level in levels(size):
        for pairs in level:
            right, left = pairs.halves(reads)[1], pairs.halves(writes)[0]
            pairs.corners(scores).copy_(right @ left.mT)
            before, after = pairs.totals(total)
            right.mul_(before)
            left.mul_(after)
        total = grow(total, level)
    return Decayed(scores, reads, writes, total[:, 0])


def decayed_products_backward(
    q: Tensor, k: Tensor, a: Tensor, d_scores: Tensor, d_reads: Tensor, d_writes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q and k, and by how much they would change what is read and written, q dq - k dk.

    A position's product with itself has no decay in it: it counts in the gradients, not in the third.
    """
    before, after, total = a.clone(), torch.ones_like(a), a
    d_q, d_k = torch.zeros_like(q), torch.zeros_like(k)
    for level in levels(q.shape[1]):
        for pairs in level:
            corner = pairs.corners(d_scores)
            (_, q_right), (k_left, _) = pairs.halves(q), pairs.halves(k)
            (_, right), (left, _) = pairs.halves(before), pairs.halves(after)
            pairs.halves(d_q)[1].addcmul_(corner @ (k_left * left), right)
            pairs.halves(d_k)[0].addcmul_(corner.mT @ (q_right * right), left)
            first, second = pairs.totals(total)
            right.mul_(first)
            left.mul_(second)
        total = grow(total, level)
    d_q.addcmul_(d_reads, before)
    d_k.addcmul_(d_writes, after)
    moved = torch.addcmul(q * d_q, k, d_k, value=-1)
    own = d_scores.diagonal(dim1=1, dim2=2).unsqueeze(-1)
    return d_q.addcmul_(own, k), d_k.addcmul_(own, q), moved


def forget_between_segments(g: Tensor, segments: Tensor | None) -> Tensor:
    """Log-decays [batch, time, ...] with -inf where a segment starts, so that it sees nothing of the one before.

    The first position starts nothing: an initial state belongs to the first segment.
    """
    if segments is None:
        return g
    starts = F.pad(runs(segments).diff(dim=1) != 0, (1, 0))
    return g.masked_fill(starts.view(*starts.shape, *(1,) * (g.dim() - 2)), -torch.inf)
