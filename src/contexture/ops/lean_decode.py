"""Attention of one query to a long, uneven past, in equal shares of work (Sanovar et al., 2024, arXiv:2405.10480).

    o_bh = sum_{s < length_b} softmax_s(scale q_bh.k_bs) v_bs

Every row of the batch has a past of its own length. The tiles of all rows and heads stand in one line, and each worker
takes an equal stretch of it (as stream-K does for matrix products): a share may end amid one head's past and go on in
the next. What a worker finds out about one head is part of a softmax; parts join associatively
(`contexture.ops.softmax_parts`), so that any split gives the same result up to rounding. Here tiles are batched
products, and workers are groups of tiles.

q, o: [batch, heads, dim or out]; k, v: [batch, past, kv_heads, dim or out], neighbouring heads sharing keys and values
as in grouped-query attention; lengths: int64 [batch].
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import dispatch
from contexture.ops.chunks import wide
from contexture.ops.softmax_parts import SoftmaxPart, join_groups

TILE = 128


class Schedule(NamedTuple):
    """The line of tiles, one entry each, int64: whose past it is part of, where it starts, and who works on it."""

    row: Tensor
    head: Tensor
    start: Tensor
    worker: Tensor


def schedule(lengths: Int[Tensor, " batch"], *, heads: int, num_workers: int, tile: int = TILE) -> Schedule:
    """Lay all tiles in a line and cut it into shares that differ by one tile at most.

    >>> line = schedule(torch.tensor([5, 2]), heads=1, num_workers=2, tile=2)
    >>> line.row.tolist(), line.start.tolist(), line.worker.tolist()
    ([0, 0, 0, 1], [0, 2, 4, 0], [0, 0, 1, 1])
    """
    device, counts = lengths.device, (lengths + tile - 1) // tile
    rows = torch.arange(lengths.numel(), device=device).repeat_interleave(heads)
    per_head = counts[rows]
    ends = per_head.cumsum(0)
    num_tiles = int(ends[-1])
    unit = torch.arange(rows.numel(), device=device).repeat_interleave(per_head)
    line = torch.arange(num_tiles, device=device)
    start = (line - (ends - per_head)[unit]) * tile
    worker = line * min(num_workers, num_tiles) // num_tiles
    return Schedule(rows[unit], unit % heads, start, worker)


def lean_decode_reference(
    q: Float[Tensor, "batch heads dim"],
    k: Float[Tensor, "batch past kv_heads dim"],
    v: Float[Tensor, "batch past kv_heads out"],
    lengths: Int[Tensor, " batch"],
    *,
    scale: float | None = None,
    **_: int,
) -> Float[Tensor, "batch heads out"]:
    """The definition, one row after another, in fp32 at least; how work is shared is all the same to it."""
    dtype, group = v.dtype, q.shape[1] // k.shape[2]
    q, k, v = (x.to(wide(dtype)) for x in (q, k, v))
    outputs = []
    for row, length in enumerate(lengths.tolist()):
        keys, values = (x[row, :length].repeat_interleave(group, 1) for x in (k, v))
        scores = torch.einsum("hd,shd->hs", q[row], keys) * (q.shape[-1] ** -0.5 if scale is None else scale)
        outputs.append(torch.einsum("hs,she->he", scores.softmax(-1), values))
    return torch.stack(outputs).to(dtype)


def lean_decode_chunked(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, num_workers: int, tile: int, scale: float
) -> Tensor:
    """Tiles as batched products, joined first by share and then by head."""
    (batch, heads, _), kv_heads = q.shape, k.shape[2]
    line = schedule(lengths, heads=kv_heads, num_workers=num_workers, tile=tile)
    unit = line.row * kv_heads + line.head
    queries = torch.unflatten(q * scale, 1, (kv_heads, -1)).flatten(0, 1)
    parts = _tiles(queries[unit], k, v, lengths, line, tile=tile)
    share, piece = torch.unique_consecutive(torch.stack((line.worker, unit), 1), dim=0, return_inverse=True)
    shares = join_groups(parts, piece, share.shape[0])
    whole = join_groups(shares, share[:, 1], batch * kv_heads)
    out = whole.summed / whole.total.unsqueeze(-1)
    return out.view(batch, heads, -1).to(v.dtype)


def lean_decode(
    q: Float[Tensor, "batch heads dim"],
    k: Float[Tensor, "batch past kv_heads dim"],
    v: Float[Tensor, "batch past kv_heads out"],
    lengths: Int[Tensor, " batch"],
    *,
    num_workers: int = 8,
    tile: int = TILE,
    scale: float | None = None,
) -> Float[Tensor, "batch heads out"]:
    """Attend once to the first `lengths` tokens of every row; `scale` is 1/sqrt(dim) unless given.

    Work and memory follow the sum of the lengths (rounded up to tiles), not the longest of them. The kernel has shares
    and tiles of its own, and does not look at lengths that lie on a GPU before it starts: one beyond the past counts as
    the past, and one below 1 gives zeros.
    Raises InputError if a length is below 1 or beyond the past, or if heads cannot share keys and values evenly.

    >>> v = torch.tensor([3.0, 5.0, 100.0]).view(1, 3, 1, 1)
    >>> lean_decode(torch.zeros(1, 1, 1), torch.ones(1, 3, 1, 1), v, torch.tensor([2])).tolist()
    [[[4.0]]]
    """
    (_, heads, dim), (_, past, kv_heads, _) = q.shape, k.shape
    if heads % kv_heads:
        raise InputError(f"{heads} heads cannot share {kv_heads} heads of keys and values evenly")
    if num_workers < 1 or tile < 1:
        raise InputError(f"{num_workers} workers on tiles of {tile} do no work: each must be 1 at least")
    if lengths.device.type == "cpu" and (int(lengths.min()) < 1 or int(lengths.max()) > past):
        raise InputError(f"lengths must lie between 1 and the {past} tokens of the past, not {lengths.tolist()}")
    scale = dim**-0.5 if scale is None else scale
    shares = {"num_workers": num_workers, "tile": tile}
    out: Tensor = dispatch.run(DECODE, q, k, v, lengths, keys=past, scale=scale, **shares)
    return out


def _tiles(
    queries: Float[Tensor, "tiles group dim"],
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    line: Schedule,
    *,
    tile: int,
) -> SoftmaxPart:
    """Attention to every tile by itself, [tiles, group, ...] in fp32 at least; every tile holds a token at least."""
    steps = line.start.unsqueeze(1) + torch.arange(tile, device=k.device)
    last = lengths[line.row].unsqueeze(1) - 1
    # What lies beyond a row's length may be anything, even not a number: a tile's rest reads the last token again.
    place = (line.row.unsqueeze(1), torch.minimum(steps, last), line.head.unsqueeze(1))
    keys, values = k[place], v[place]
    scores = (queries @ keys.mT).to(wide(k.dtype)).masked_fill((steps > last).unsqueeze(1), -math.inf)
    largest = scores.detach().amax(-1)
    weights = torch.exp(scores - largest.unsqueeze(-1))
    return SoftmaxPart(largest, weights.sum(-1), (weights.to(v.dtype) @ values).to(weights.dtype))


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q = torch.randn(batch, heads, dim, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return q, k, v, torch.randint(1, time + 1, (batch,), generator=generator)


DECODE = dispatch.Op(
    name="lean-decode",
    paths={"reference": lean_decode_reference, "chunked": lean_decode_chunked},
    call=lambda *inputs, **keywords: (lean_decode(*inputs, **keywords), ()),
    sample=_sample,
)
"""The paths of decoding; it has no state and no packed form, so that the laws of ops are not for it."""
