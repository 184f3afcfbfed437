"""Products of decays inside a chunk, by a tree of halves: no quotient, no cumulative sum, nothing that can overflow.

Step t multiplies what was written before it by a_t in [0, 1]. What position i reads of position j <= i is

    P_ij = sum_d q_id k_jd a_{j+1,d} ... a_id

A chunk is cut into blocks of one row, and neighbouring blocks are joined until one is left. While blocks are apart,
`reads` holds q_i times the decays from its block's start up to i, and `writes` k_j times the decays after j up to its
block's end; so two neighbours fill the corner of P in which the right one reads the left one by one product, and then
the right one's reads are multiplied by the left one's total decay and the left one's writes by the right one's. Every
factor is at most one: a decay of zero (a log-decay of -inf) is exact, and is how a segment ends.

q, k, a: [chunks, size, dim], where size is a power of two; P: [chunks, size, size]; total: [chunks, dim].
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.ops.segments import runs


def chunk_size(time: int) -> int:
    """The power of two up to 64 that fills time up least; of several, the largest that is of use.

    >>> [chunk_size(time) for time in (1, 5, 50, 64, 82, 2048)]
    [1, 8, 64, 64, 32, 64]
    """
    best = 1 << min(6, (time - 1).bit_length())
    for size in (32, 16):
        if -time % size < -time % best:
            best = size
    return best


class Decayed(NamedTuple):
    """P and, for the whole chunk, q times all decays up to it, k times all decays after it, and all decays' product."""

    scores: Tensor
    reads: Tensor
    writes: Tensor
    total: Tensor


def _neighbours(x: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The left and the right blocks of every pair as views, [chunks, pairs, rows, dim]."""
    blocks = torch.unflatten(x, 1, (-1, 2, rows))
    return blocks[:, :, 0], blocks[:, :, 1]


def _corners(scores: Tensor, rows: int) -> Tensor:
    """Where the right blocks read the left ones, [chunks, pairs, rows, rows], a view of [chunks, size, size]."""
    blocks = torch.unflatten(torch.unflatten(scores, 2, (-1, 2, rows)), 1, (-1, 2, rows))
    return blocks[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3).movedim(-1, 1)


def _product(corner: Tensor, x: Tensor) -> Tensor:
    """corner @ x; blocks of one or two rows are faster by outer products."""
    if corner.shape[-1] > 2:
        return corner @ x
    total = corner[..., :1] * x[..., :1, :]
    return total if corner.shape[-1] == 1 else total.addcmul_(corner[..., 1:], x[..., 1:, :])


def decayed_products(q: Tensor, k: Tensor, a: Tensor) -> Decayed:
    """P and the whole chunk's reads and writes. Works in place on fresh memory: it has no gradient of its own."""
    chunks, size, _ = q.shape
    scores = q.new_zeros(chunks, size, size)
    scores.diagonal(dim1=1, dim2=2).copy_(torch.linalg.vecdot(q, k))
    reads, writes, total, rows = q * a, k.clone(), a, 1
    while rows < size:
        (_, right), (left, _) = _neighbours(reads, rows), _neighbours(writes, rows)
        _corners(scores, rows).copy_(right @ left.mT)
        before, after = _neighbours(total, 1)
        right.mul_(before)
        left.mul_(after)
        total, rows = (before * after).squeeze(2), 2 * rows
    return Decayed(scores, reads, writes, total[:, 0])


def decayed_products_backward(
    q: Tensor, k: Tensor, a: Tensor, d_scores: Tensor, d_reads: Tensor, d_writes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q and k, and by how much they would change what is read and written, q dq - k dk.

    A position's product with itself has no decay in it: it counts in the gradients, not in the third.
    """
    before, after, total, rows = a.clone(), torch.ones_like(a), a, 1
    d_q, d_k = torch.zeros_like(q), torch.zeros_like(k)
    while rows < q.shape[1]:
        corner = _corners(d_scores, rows)
        (_, q_right), (k_left, _) = _neighbours(q, rows), _neighbours(k, rows)
        (_, right), (left, _) = _neighbours(before, rows), _neighbours(after, rows)
        _neighbours(d_q, rows)[1].addcmul_(_product(corner, k_left * left), right)
        _neighbours(d_k, rows)[0].addcmul_(_product(corner.mT, q_right * right), left)
        first, second = _neighbours(total, 1)
        right.mul_(first)
        left.mul_(second)
        total, rows = (first * second).squeeze(2), 2 * rows
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
