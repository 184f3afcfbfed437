"""The kernels of `contexture.ops.cached_memories`: memories are to queries what values are to attention.

A tile of 64 queries of one head goes through all memories, a block of hidden units at a time, and skips those that none
of its queries reads: earlier segments only, or the few that were selected. Hidden units and single memories' answers
are never in memory. Backward makes them anew, once for a tile's queries and weights, and once for a block of each
memory, which sums over the tiles that read it. A matrix is a network whose hidden units are the queries themselves.

Bound by FLOPs: 2 * dim * out (a matrix) or 8 * dim * dim (a network of 2 * dim units) a query, head and memory read
(batch 8, 16 heads of 128, length 8,192, segments of 256: half of 32 networks, 2.2 TFLOP = 2.8 ms at 798 TFLOP/s in
bf16; a memory is read from the cache once a tile of queries). Memories held in fp32 are multiplied in three tf32
products, a sixth of that rate. The weights' gradients are summed over heads from [heads, time, memories] in fp32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.chunks import silence
from contexture.ops.triton.launch import dot, rows, tile
from contexture.ops.triton.tiles import load_rows, part_and_unit, strides_of

QUERIES = 64
"""How many queries a tile has, where 64 rows of them are 32 KiB at most."""
HIDDEN = 32
"""How many hidden units a program has in hand."""


@triton.jit
def _forward_kernel(
    q_ptr, weights_ptr, first_ptr, second_ptr, out_ptr, q_strides, time, heads, memories,
    DIM: tl.constexpr, INNER: tl.constexpr, OUT: tl.constexpr, BQ: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr,
    BE: tl.constexpr, NETWORK: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """A tile of queries through all memories that any of them reads."""
    some, unit = part_and_unit(tl.cdiv(time, BQ))
    row, head = unit // heads, unit % heads
    d, e, t = tl.arange(0, BD), tl.arange(0, BE), some * BQ + tl.arange(0, BQ)
    in_d, in_e, there = d < DIM, e < OUT, t < time
    q = load_rows(q_ptr, q_strides, row, head, t, d, there[:, None] & in_d[None, :]).to(DOT)
    total, out = tl.zeros([BQ], tl.float32), tl.zeros([BQ, BE], tl.float32)
    weights_ptr += row * time * memories + t.to(tl.int64) * memories
    for i in range(memories):
        w = tl.load(weights_ptr + i, mask=there, other=0.0).to(tl.float32)
        if tl.max(tl.abs(w), 0) > 0:
            memory = (row * memories + i) * heads + head
            total += w
            for block in range(tl.cdiv(INNER, BH)):
                h = block * BH + tl.arange(0, BH)
                in_h = h < INNER
                second = tl.load(
                    second_ptr + memory * INNER * OUT + h[:, None] * OUT + e[None, :],
                    mask=in_h[:, None] & in_e[None, :], other=0.0,
                ).to(DOT)  # fmt: skip
                if NETWORK:
                    first = tl.load(
                        first_ptr + memory * DIM * INNER + d[:, None] * INNER + h[None, :],
                        mask=in_d[:, None] & in_h[None, :], other=0.0,
                    ).to(DOT)  # fmt: skip
                    z = tl.dot(q, first, input_precision="tf32x3")
                    hidden = z * tl.sigmoid(z)
                else:
                    hidden = load_rows(q_ptr, q_strides, row, head, t, h, there[:, None] & in_h[None, :])
                    hidden = hidden.to(tl.float32)
                out += tl.dot((hidden * w[:, None]).to(DOT), second, input_precision="tf32x3")
    if NETWORK:
        out += total[:, None] * load_rows(q_ptr, q_strides, row, head, t, e, there[:, None] & in_e[None, :])
    at = ((row * time + t[:, None]) * heads + head) * OUT + e[None, :]
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=there[:, None] & in_e[None, :])


@triton.jit
def _queries_kernel(
    q_ptr, weights_ptr, first_ptr, second_ptr, d_out_ptr, d_q_ptr, d_weights_ptr, q_strides, time, heads, memories,
    DIM: tl.constexpr, INNER: tl.constexpr, OUT: tl.constexpr, BQ: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr,
    BE: tl.constexpr, NETWORK: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of queries and of their weights."""
    some, unit = part_and_unit(tl.cdiv(time, BQ))
    row, head = unit // heads, unit % heads
    d, e, t = tl.arange(0, BD), tl.arange(0, BE), some * BQ + tl.arange(0, BQ)
    in_d, in_e, there = d < DIM, e < OUT, t < time
    q = load_rows(q_ptr, q_strides, row, head, t, d, there[:, None] & in_d[None, :])
    at = ((row * time + t[:, None]) * heads + head) * OUT
    d_out = tl.load(d_out_ptr + at + e[None, :], mask=there[:, None] & in_e[None, :], other=0.0)
    d_q, straight = tl.zeros([BQ, BD], tl.float32), tl.zeros([BQ], tl.float32)
    if NETWORK:
        passed = tl.load(d_out_ptr + at + d[None, :], mask=there[:, None] & in_d[None, :], other=0.0)
        straight = tl.sum(q.to(tl.float32) * passed.to(tl.float32), 1)
    weights_ptr += row * time * memories + t.to(tl.int64) * memories
    d_weights_ptr += unit * time * memories + t.to(tl.int64) * memories
    for i in range(memories):
        w = tl.load(weights_ptr + i, mask=there, other=0.0).to(tl.float32)
        if tl.max(tl.abs(w), 0) > 0:
            memory = (row * memories + i) * heads + head
            d_w, asked = straight, tl.zeros([BQ, BD], tl.float32)
            if NETWORK:
                for block in range(tl.cdiv(INNER, BH)):
                    h = block * BH + tl.arange(0, BH)
                    in_h = h < INNER
                    second = tl.load(
                        second_ptr + memory * INNER * OUT + h[None, :] * OUT + e[:, None],
                        mask=in_h[None, :] & in_e[:, None], other=0.0,
                    ).to(DOT)  # fmt: skip
                    first = tl.load(
                        first_ptr + memory * DIM * INNER + d[:, None] * INNER + h[None, :],
                        mask=in_d[:, None] & in_h[None, :], other=0.0,
                    ).to(DOT)  # fmt: skip
                    z = tl.dot(q.to(DOT), first, input_precision="tf32x3")
                    s = tl.sigmoid(z)
                    back = tl.dot(d_out.to(DOT), second, input_precision="tf32x3")
                    d_w += tl.sum(z * s * back, 1)
                    back *= w[:, None] * s * (1 + z * (1 - s))
                    asked += tl.dot(back.to(DOT), tl.trans(first), input_precision="tf32x3")
                d_q += asked + w[:, None] * passed.to(tl.float32)
            else:
                for block in range(tl.cdiv(OUT, BH)):
                    h = block * BH + tl.arange(0, BH)
                    in_h = h < OUT
                    slopes = tl.load(d_out_ptr + at + h[None, :], mask=there[:, None] & in_h[None, :], other=0.0)
                    second = tl.load(
                        second_ptr + memory * INNER * OUT + d[None, :] * OUT + h[:, None],
                        mask=in_d[None, :] & in_h[:, None], other=0.0,
                    ).to(DOT)  # fmt: skip
                    asked += tl.dot(slopes.to(DOT), second, input_precision="tf32x3")
                d_w += tl.sum(q.to(tl.float32) * asked, 1)
                d_q += w[:, None] * asked
            tl.store(d_weights_ptr + i, tl.where(w == 0, 0.0, d_w), mask=there)
    place = ((row * time + t[:, None]) * heads + head) * DIM + d[None, :]
    tl.store(d_q_ptr + place, d_q.to(d_q_ptr.dtype.element_ty), mask=there[:, None] & in_d[None, :])


@triton.jit
def _parts_kernel(
    q_ptr, weights_ptr, first_ptr, second_ptr, d_out_ptr, d_first_ptr, d_second_ptr, q_strides, time, heads, memories,
    DIM: tl.constexpr, INNER: tl.constexpr, OUT: tl.constexpr, BQ: tl.constexpr, BD: tl.constexpr, BH: tl.constexpr,
    BE: tl.constexpr, NETWORK: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradients of some hidden units of one memory, from all tiles of queries that read it."""
    blocks = (INNER + BH - 1) // BH
    part, unit = part_and_unit(blocks * memories)
    i = part // blocks
    row, head = unit // heads, unit % heads
    d, e, h = tl.arange(0, BD), tl.arange(0, BE), part % blocks * BH + tl.arange(0, BH)
    in_d, in_e, in_h = d < DIM, e < OUT, h < INNER
    memory = (row * memories + i) * heads + head
    of_second = memory * INNER * OUT + h[:, None] * OUT + e[None, :]
    of_first = memory * DIM * INNER + d[:, None] * INNER + h[None, :]
    d_second, d_first = tl.zeros([BH, BE], tl.float32), tl.zeros([BD, BH], tl.float32)
    if NETWORK:
        second = tl.load(second_ptr + of_second, mask=in_h[:, None] & in_e[None, :], other=0.0).to(DOT)
        first = tl.load(first_ptr + of_first, mask=in_d[:, None] & in_h[None, :], other=0.0).to(DOT)
    for n in range(tl.cdiv(time, BQ)):
        t = n * BQ + tl.arange(0, BQ)
        there = t < time
        w = tl.load(weights_ptr + (row * time + t) * memories + i, mask=there, other=0.0).to(tl.float32)
        if tl.max(tl.abs(w), 0) > 0:
            at = ((row * time + t[:, None]) * heads + head) * OUT + e[None, :]
            d_out = tl.load(d_out_ptr + at, mask=there[:, None] & in_e[None, :], other=0.0)
            weighted = (d_out.to(tl.float32) * w[:, None]).to(DOT)
            if NETWORK:
                q = load_rows(q_ptr, q_strides, row, head, t, d, there[:, None] & in_d[None, :]).to(DOT)
                z = tl.dot(q, first, input_precision="tf32x3")
                s = tl.sigmoid(z)
                back = tl.dot(weighted, tl.trans(second), input_precision="tf32x3") * s * (1 + z * (1 - s))
                d_first += tl.dot(tl.trans(q), back.to(DOT), input_precision="tf32x3")
                hidden = (z * s).to(DOT)
            else:
                hidden = load_rows(q_ptr, q_strides, row, head, t, h, there[:, None] & in_h[None, :]).to(DOT)
            d_second += tl.dot(tl.trans(hidden), weighted, input_precision="tf32x3")
    d_second = d_second.to(d_second_ptr.dtype.element_ty)
    tl.store(d_second_ptr + of_second, d_second, mask=in_h[:, None] & in_e[None, :])
    if NETWORK:
        d_first = d_first.to(d_first_ptr.dtype.element_ty)
        tl.store(d_first_ptr + of_first, d_first, mask=in_d[:, None] & in_h[None, :])


def cut(row: int) -> tuple[int, int]:
    """How many queries a tile has and how many blocks are under way where a row has `row` bytes: what fits an SM.

    >>> cut(512), cut(1024)
    ((64, 2), (16, 1))
    """
    return (QUERIES, 2) if row <= 512 else (QUERIES // 4, 1)


class _Cached(torch.autograd.Function):
    """q: [batch, time, heads, dim]; weights: [batch, time, memories]; first: [batch, memories, heads, dim, inner] or
    None; second: [.., inner or dim, out]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, weights: Tensor, first: Tensor | None, second: Tensor) -> Tensor:
        (batch, time, heads, dim), (inner, out_dim) = q.shape, second.shape[-2:]
        queries, stages = cut(max(tile(dim), tile(out_dim)) * q.element_size())
        settings = {
            "DIM": dim, "INNER": inner, "OUT": out_dim, "BQ": queries, "BD": tile(dim), "BH": HIDDEN,
            "BE": tile(out_dim), "NETWORK": first is not None, "DOT": dot(q.dtype), "num_warps": 4,
            "num_stages": stages,
        }  # fmt: skip
        out = torch.empty(batch, time, heads, out_dim, dtype=q.dtype, device=q.device)
        parts = second if first is None else first, second
        sizes = strides_of(q), time, heads, weights.shape[2]
        _forward_kernel[(triton.cdiv(time, queries) * batch * heads,)](q, weights, *parts, out, *sizes, **settings)
        ctx.save_for_backward(q, weights, first, second)
        ctx.launch = sizes, settings
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, weights, first, second = ctx.saved_tensors
        (*sizes, count), settings = ctx.launch
        d_out, units = gradients[0].contiguous(), q.shape[0] * q.shape[2]
        d_q, d_second = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, second))
        d_first = None if first is None else torch.empty(first.shape, dtype=first.dtype, device=first.device)
        d_weights = torch.zeros(q.shape[0], q.shape[2], *weights.shape[1:], dtype=torch.float32, device=q.device)
        given = q, weights, second if first is None else first, second, d_out
        tiles = triton.cdiv(q.shape[1], settings["BQ"])
        _queries_kernel[(tiles * units,)](*given, d_q, d_weights, *sizes, count, **settings)
        blocks = triton.cdiv(second.shape[-2], HIDDEN)
        parts = d_second if d_first is None else d_first, d_second
        _parts_kernel[(blocks * count * units,)](*given, *parts, *sizes, count, **settings)
        return d_q, d_weights.sum(1).to(weights.dtype), d_first, d_second


def cached_memories_triton(q: Tensor, weights: Tensor, *parts: Tensor, segments: Tensor | None) -> Tensor:
    """Tiles of queries through the memories that they read."""
    *first, second = (part.contiguous() for part in parts)
    out = _Cached.apply(rows(q), weights.contiguous(), first[0] if first else None, second)
    return silence(out, segments)
