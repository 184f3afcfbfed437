"""Reading many memories at once, each with a weight of its own (Behrouz et al., 2026, arXiv:2602.24281).

    o_t = sum_i w_ti M_i(q_t),    M_i(x) = C_i' x    or    M_i(x) = x + W_i2' s(W_i1' x)

with s the SiLU: one part a memory makes it a matrix, two make it a network. A memory whose weight is zero is not read
at all, and that weight gets no gradient; so memories that are yet to come, or that were not selected, cost a kernel
nothing.

q: [batch, time, heads, dim]; w: [batch, time, memories], shared by all heads; a part: [batch, memories, heads, in,
out]; o: [batch, time, heads, out]. All is computed in fp32 at least. There is no state: what is read stands.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.errors import InputError
from contexture.ops import dispatch
from contexture.ops.chunks import silence, wide
from contexture.ops.memories import Matrix, Memory, Network

MEMORIES: dict[int, Memory] = {1: Matrix(), 2: Network()}
"""What a memory of so many parts is."""
MOST_FEATURES = 1024
"""Features of the memories of one tile, side by side."""
TILE = 2**20
"""Numbers of the features of one tile, over all heads and sequences."""


def _read(weights: Tensor) -> Tensor:
    """The weights, of which those that are zero get no gradient."""
    return weights.masked_fill(weights.detach() == 0, 0.0)


def cached_memories_reference(q: Tensor, weights: Tensor, *parts: Tensor, segments: Tensor | None) -> Tensor:
    """The definition, one token and one memory after another."""
    dtype, held, memory = q.dtype, wide(q.dtype), MEMORIES[len(parts)]
    q, weights, outputs = q.to(held), _read(weights).to(held), []
    for t in range(q.shape[1]):
        total = q.new_zeros(*q[:, t].shape[:2], parts[-1].shape[-1])
        for i in range(weights.shape[2]):
            ours = [part[:, i].to(held) for part in parts]
            read = memory.read(lambda n, rows, ours=ours: rows @ ours[n], q[:, t].unsqueeze(2))  # type: ignore[misc]
            total = total + weights[:, t, i, None, None] * read.squeeze(2)
        outputs.append(total)
    return silence(torch.stack(outputs, 1), segments).to(dtype)


def cached_memories_chunked(q: Tensor, weights: Tensor, *parts: Tensor, segments: Tensor | None) -> Tensor:
    """Tile after tile of tokens and memories, those of weight zero left out; compiled, every token to every memory."""
    dtype, held = q.dtype, wide(q.dtype)
    ours = [part.to(held) for part in parts]
    rows, shares = q.to(held).transpose(1, 2), _read(weights).to(held)
    if torch.compiler.is_compiling():
        every = MEMORIES[len(parts)].read(lambda n, x: x @ ours[n], rows.unsqueeze(1))
        out = (shares.permute(0, 2, 1)[:, :, None, :, None] * every).sum(1)
    else:
        batch, heads = rows.shape[:2]
        expanded = shares.unsqueeze(1).expand(-1, heads, -1, -1).flatten(0, 1)
        stacked = (part.transpose(1, 2).expand(batch, -1, -1, -1, -1).flatten(0, 1) for part in ours)
        read: Tensor = _Tiles.apply(rows.flatten(0, 1), expanded, *stacked)  # type: ignore[no-untyped-call]
        out = torch.unflatten(read, 0, (batch, heads))
    return silence(out.transpose(1, 2).to(dtype), segments)


class _Tiles(torch.autograd.Function):
    """q: [lead, time, dim]; weights: [lead, time, memories]; parts: [lead, memories, in, out]. Once differentiable.

    The weighted features of the memories of a tile stand side by side, [lead, rows, memories * features], so that one
    product with their last parts, one above the other, both reads and adds up. Features are q itself for matrices and
    s(W_1' q) for networks; the backward computes them again, and keeps nothing of the size of a tile.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, weights: Tensor, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(q, weights, *parts)
        out = q * weights.sum(-1, keepdim=True) if len(parts) > 1 else q.new_zeros(*q.shape[:2], parts[-1].shape[-1])
        for rows, some in _tiles(q, weights, parts):
            features = _features(q[:, rows], parts, some)[1]
            weighted = (features * weights[:, rows, some, None]).flatten(2)
            out[:, rows].baddbmm_(weighted, parts[-1][:, some].flatten(1, 2))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (d_out,) = gradients
        q, weights, *parts = ctx.saved_tensors
        d_q, d_weights, d_parts = torch.zeros_like(q), torch.zeros_like(weights), [torch.zeros_like(x) for x in parts]
        if len(parts) > 1:
            d_q = d_out * weights.sum(-1, keepdim=True)
            d_weights = torch.linalg.vecdot(d_out, q).unsqueeze(-1).expand_as(weights).clone()
        for rows, some in _tiles(q, weights, parts):
            share, last = weights[:, rows, some, None], parts[-1][:, some]
            before, features = _features(q[:, rows], parts, some)
            weighted = (features * share).flatten(2)
            d_parts[-1][:, some] += torch.unflatten(weighted.mT @ d_out[:, rows], 1, last.shape[1:3])
            d_weighted = torch.unflatten(d_out[:, rows] @ last.flatten(1, 2).mT, 2, last.shape[1:3])
            d_weights[:, rows, some] += (d_weighted * features).sum(-1)
            d_features = d_weighted.mul_(share)
            if before is None:
                d_q[:, rows] += d_features.sum(2)
                continue
            d_before = torch.ops.aten.silu_backward(d_features, before).flatten(2)
            first = parts[0][:, some]
            d_first = (q[:, rows].mT @ d_before).unflatten(2, (first.shape[1], -1))
            d_parts[0][:, some] += d_first.transpose(1, 2)
            d_q[:, rows].baddbmm_(d_before, first.mT.flatten(1, 2))
        return d_q, d_weights.masked_fill_(weights == 0, 0.0), *d_parts


def _features(q: Tensor, parts: Sequence[Tensor], some: slice) -> tuple[Tensor | None, Tensor]:
    """What the last parts of some memories are given, [lead, rows, memories, features], and that before the SiLU."""
    if len(parts) == 1:
        return None, q.unsqueeze(2)
    first = parts[0][:, some]
    before = torch.unflatten(q @ first.transpose(1, 2).flatten(2), 2, (first.shape[1], -1))
    return before, F.silu(before)


def _tiles(q: Tensor, weights: Tensor, parts: Sequence[Tensor]) -> Iterator[tuple[slice, slice]]:
    """Rows and memories of every tile in which any weight is not zero; on a GPU, which would have to wait, of all."""
    lead, time, memories = weights.shape
    together = max(1, MOST_FEATURES // parts[-1].shape[-2])
    count = max(1, TILE // (lead * min(together, memories or 1) * parts[-1].shape[-2]))
    for start in range(0, time, count):
        rows = slice(start, start + count)
        for first in range(0, memories, together):
            some = slice(first, first + together)
            if weights.device.type != "cpu" or weights[:, rows, some].any():
                yield rows, some


def cached_memories(
    q: Float[Tensor, "batch time heads dim"],
    weights: Float[Tensor, "batch time memories"],
    *parts: Float[Tensor, "batch memories heads _ _"],
    segments: Int[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time heads out"]:
    """Read every memory with a weight of its own and add up; one part makes memories matrices, two networks.

    Raises InputError if there are neither one nor two parts.

    >>> memories = torch.tensor([2.0, 10.0]).view(1, 2, 1, 1, 1)
    >>> cached_memories(torch.ones(1, 1, 1, 1), torch.tensor([[[0.5, 0.25]]]), memories).item()
    3.5
    """
    if len(parts) not in MEMORIES:
        raise InputError(f"memories of {len(parts)} parts are not known: give one for matrices, two for networks")
    out: Tensor = dispatch.run(OP, q, weights, *parts, keys=weights.shape[2], segments=segments)
    return out


def _call(
    q: Tensor, weights: Tensor, *parts: Tensor, initial_state: tuple[()] = (), segments: Tensor | None = None
) -> tuple[Tensor, tuple[()]]:
    """The same memories for all rows, as the laws would have it."""
    every = (part.expand(len(q), *part.shape) for part in parts)
    return cached_memories(q, weights, *every, segments=segments), initial_state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    first, second = draw(3, heads, dim, 2 * dim), draw(3, heads, 2 * dim, dim)
    return draw(batch, time, heads, dim), draw(batch, time, 3).softmax(-1), first, second


OP = dispatch.Op(
    name="cached-memories",
    paths={"reference": cached_memories_reference, "chunked": cached_memories_chunked},
    call=_call,
    sample=_sample,
)
