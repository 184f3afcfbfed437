"""The kernels of `contexture.ops.lean_decode`: one query over a long past of uneven lengths, in equal shares of work.

Tiles of all rows and heads stand in one line, row by row, and each of W programs takes an equal stretch of it, as in
the torch form. Program w leaves what it found out about unit u (a row's head of keys) in slot w + u: along the line
either number only grows, so that no two parts meet in a slot, and W + units slots suffice. A second kernel joins the
slots of each unit; which programs touched it follows from where its tiles lie. Lengths are read on the device: nothing
waits for the host.

Bound by bytes: keys and values are read once, 2 * length * kv_heads * dim * 2 B a row in bf16 (128k tokens, 8 heads of
128: 537 MB, 179 us at 3.0 TB/s), while the group's 4 FLOPs per number read keep no matrix unit busy. Parts are
(W + units) * group * (out + 2) * 4 B, below 1 % of it. Backward reads both once more and writes their gradients.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.triton.device import num_programs
from contexture.ops.triton.launch import dot, rows, tile
from contexture.ops.triton.tiles import part_and_unit

TILE = 64
"""How many tokens a tile has, where 64 rows of its keys are 32 KiB at most."""
PROGRAMS = 4
"""How many programs share one multiprocessor."""


@triton.jit
def _line(lengths_ptr, past, batch, KV_HEADS: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr):
    """Tiles of one head of every row, and where each row's tiles end in the line."""
    rows = tl.arange(0, ROWS)
    lengths = tl.load(lengths_ptr + rows, mask=rows < batch, other=0).to(tl.int64)
    counts = (tl.minimum(lengths, past) + TILE - 1) // TILE
    return counts, tl.cumsum(counts * KV_HEADS, 0)


@triton.jit
def _shares_kernel(
    q_ptr, k_ptr, v_ptr, lengths_ptr, largest_ptr, total_ptr, summed_ptr, scale, past, batch,
    k_row, k_time, k_head, v_row, v_time, v_head,
    ROWS: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr,
    OUT: tl.constexpr, TILE: tl.constexpr, BG: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """One program's stretch of the line."""
    counts, ends = _line(lengths_ptr, past, batch, KV_HEADS, TILE, ROWS)
    tiles = tl.max(ends, 0)
    w = tl.program_id(0)
    workers = tl.minimum(tl.num_programs(0), tl.maximum(tiles, 1))
    t = w * tiles // workers
    last = tl.where(w < workers, (w + 1) * tiles // workers, t)
    group, d, e, step = tl.arange(0, BG), tl.arange(0, BD), tl.arange(0, BO), tl.arange(0, TILE)
    in_group, in_d, in_e = group < GROUP, d < DIM, e < OUT
    while t < last:
        row = tl.sum((ends <= t).to(tl.int64), 0)
        before = tl.sum(tl.where(tl.arange(0, ROWS) < row, counts * KV_HEADS, 0), 0)
        length = tl.minimum(tl.load(lengths_ptr + row).to(tl.int64), past)
        count = (length + TILE - 1) // TILE
        head = (t - before) // count
        begin = before + head * count
        stop = tl.minimum(begin + count, last)
        unit = row * KV_HEADS + head
        of_unit = (unit * GROUP + group)[:, None]
        q = tl.load(q_ptr + of_unit * DIM + d[None, :], mask=in_group[:, None] & in_d[None, :], other=0.0)
        q = q.to(DOT)
        largest = tl.full([BG], float("-inf"), tl.float32)
        total = tl.zeros([BG], tl.float32)
        summed = tl.zeros([BG, BO], tl.float32)
        for n in range(t - begin, stop - begin):
            s = n * TILE + step
            there = s < length
            k = tl.load(
                k_ptr + row * k_row + head * k_head + s[None, :] * k_time + d[:, None],
                mask=there[None, :] & in_d[:, None],
                other=0.0,
            )
            v = tl.load(
                v_ptr + row * v_row + head * v_head + s[:, None] * v_time + e[None, :],
                mask=there[:, None] & in_e[None, :],
                other=0.0,
            )
            scores = tl.dot(q, k.to(DOT), input_precision="tf32x3") * scale
            scores = tl.where(there[None, :], scores, float("-inf"))
            higher = tl.maximum(largest, tl.max(scores, 1))
            weights, kept = tl.exp(scores - higher[:, None]), tl.exp(largest - higher)
            total = total * kept + tl.sum(weights, 1)
            summed = summed * kept[:, None] + tl.dot(weights.to(DOT), v.to(DOT), input_precision="tf32x3")
            largest = higher
        slot = ((w + unit) * GROUP + group).to(tl.int64)
        tl.store(largest_ptr + slot, largest, mask=in_group)
        tl.store(total_ptr + slot, total, mask=in_group)
        tl.store(summed_ptr + slot[:, None] * OUT + e[None, :], summed, mask=in_group[:, None] & in_e[None, :])
        t = stop


@triton.jit
def _join_kernel(
    lengths_ptr, largest_ptr, total_ptr, summed_ptr, out_ptr, lse_ptr, past, batch, num_programs,
    ROWS: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, OUT: tl.constexpr,
    TILE: tl.constexpr, BG: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """Join what all programs found out about one unit; a row without tokens gives zero."""
    counts, ends = _line(lengths_ptr, past, batch, KV_HEADS, TILE, ROWS)
    tiles = tl.max(ends, 0)
    workers = tl.minimum(num_programs, tl.maximum(tiles, 1))
    unit = tl.program_id(0).to(tl.int64)
    row, head = unit // KV_HEADS, unit % KV_HEADS
    count = tl.sum(tl.where(tl.arange(0, ROWS) == row, counts, 0), 0)
    begin = tl.sum(tl.where(tl.arange(0, ROWS) < row, counts * KV_HEADS, 0), 0) + head * count
    # Tile t is worker w's if floor(w tiles / workers) <= t < floor((w + 1) tiles / workers).
    first = ((begin + 1) * workers - 1) // tl.maximum(tiles, 1)
    after = tl.where(count > 0, ((begin + count) * workers - 1) // tl.maximum(tiles, 1) + 1, first)
    group, e = tl.arange(0, BG), tl.arange(0, BO)
    in_group, shown = group < GROUP, (group < GROUP)[:, None] & (e < OUT)[None, :]
    largest = tl.full([BG], float("-inf"), tl.float32)
    total = tl.zeros([BG], tl.float32)
    summed = tl.zeros([BG, BO], tl.float32)
    for w in range(first, after):
        slot = (w + unit) * GROUP + group
        high = tl.load(largest_ptr + slot, mask=in_group, other=0.0)
        higher = tl.maximum(largest, high)
        kept, taken = tl.exp(largest - higher), tl.exp(high - higher)
        total = total * kept + taken * tl.load(total_ptr + slot, mask=in_group, other=1.0)
        part = tl.load(summed_ptr + slot[:, None] * OUT + e[None, :], mask=shown, other=0.0)
        summed = summed * kept[:, None] + part * taken[:, None]
        largest = higher
    place = unit * GROUP + group
    out = summed / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(out_ptr + place[:, None] * OUT + e[None, :], out.to(out_ptr.dtype.element_ty), mask=shown)
    tl.store(lse_ptr + place, tl.where(total > 0, largest + tl.log(total), 0.0), mask=in_group)


@triton.jit
def _gradients_kernel(
    q_ptr, k_ptr, v_ptr, lengths_ptr, lse_ptr, out_ptr, d_out_ptr, d_q_ptr, d_k_ptr, d_v_ptr, scale, past,
    k_row, k_time, k_head, v_row, v_time, v_head,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, OUT: tl.constexpr, TILE: tl.constexpr,
    BG: tl.constexpr, BD: tl.constexpr, BO: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """One tile: the gradients of its keys and values, and its share of the queries'."""
    tiles = tl.cdiv(past, TILE)
    n, unit = part_and_unit(tiles)
    row, head = unit // KV_HEADS, unit % KV_HEADS
    length = tl.minimum(tl.load(lengths_ptr + row), past)
    group, d, e = tl.arange(0, BG), tl.arange(0, BD), tl.arange(0, BO)
    s = n.to(tl.int64) * TILE + tl.arange(0, TILE)
    in_group, in_d, in_e, there = group < GROUP, d < DIM, e < OUT, s < length
    place = unit * GROUP + group
    q_mask, o_mask = in_group[:, None] & in_d[None, :], in_group[:, None] & in_e[None, :]
    k_mask, v_mask = there[:, None] & in_d[None, :], there[:, None] & in_e[None, :]
    q = tl.load(q_ptr + place[:, None] * DIM + d[None, :], mask=q_mask, other=0.0).to(DOT)
    out = tl.load(out_ptr + place[:, None] * OUT + e[None, :], mask=o_mask, other=0.0).to(tl.float32)
    d_out = tl.load(d_out_ptr + place[:, None] * OUT + e[None, :], mask=o_mask, other=0.0)
    delta = tl.sum(out * d_out.to(tl.float32), 1)
    lse = tl.load(lse_ptr + place, mask=in_group, other=0.0)
    k = tl.load(k_ptr + row * k_row + head * k_head + s[:, None] * k_time + d[None, :], mask=k_mask, other=0.0)
    v = tl.load(v_ptr + row * v_row + head * v_head + s[:, None] * v_time + e[None, :], mask=v_mask, other=0.0)
    k, v, d_out = k.to(DOT), v.to(DOT), d_out.to(DOT)
    scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * scale
    weights = tl.where(there[None, :], tl.exp(scores - lse[:, None]), 0.0)
    d_weights = tl.dot(d_out, tl.trans(v), input_precision="tf32x3")
    d_scores = (weights * (d_weights - delta[:, None]) * scale).to(DOT)
    d_v = tl.dot(tl.trans(weights.to(DOT)), d_out, input_precision="tf32x3")
    d_k = tl.dot(tl.trans(d_scores), q, input_precision="tf32x3")
    d_q = tl.dot(d_scores, k, input_precision="tf32x3")
    at = ((row * past + s) * KV_HEADS + head)[:, None]
    seen = (s < past)[:, None]
    tl.store(d_k_ptr + at * DIM + d[None, :], d_k.to(d_k_ptr.dtype.element_ty), mask=seen & in_d[None, :])
    tl.store(d_v_ptr + at * OUT + e[None, :], d_v.to(d_v_ptr.dtype.element_ty), mask=seen & in_e[None, :])
    part = (n.to(tl.int64) * (tl.num_programs(0) // tiles) + unit) * GROUP + group
    tl.store(d_q_ptr + part[:, None] * DIM + d[None, :], d_q, mask=q_mask)


def tile_of(row: int) -> int:
    """How many tokens a tile has if a row of keys or values has `row` bytes: three of them fit the memory of an SM.

    >>> tile_of(256), tile_of(1024)
    (64, 32)
    """
    return TILE if row <= 512 else TILE // 2


class _LeanDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float) -> Tensor:
        (batch, heads, dim), (_, past, kv_heads, out_dim) = q.shape, v.shape
        group, units, programs = heads // kv_heads, batch * kv_heads, num_programs(q.device, each=PROGRAMS)
        largest_row = max(tile(dim), tile(out_dim)) * max(k.element_size(), v.element_size())
        sizes = {"KV_HEADS": kv_heads, "GROUP": group, "TILE": tile_of(largest_row)}
        line = {"ROWS": triton.next_power_of_2(batch)}
        tiles = {"BG": tile(group), "BO": tile(out_dim)}
        products = {"DOT": dot(v.dtype)}
        parts = torch.empty(programs + units, group, out_dim + 2, dtype=torch.float32, device=q.device).view(-1)
        slots = (programs + units) * group
        largest, total, summed = parts[:slots], parts[slots : 2 * slots], parts[2 * slots :]
        out = torch.empty(batch, heads, out_dim, dtype=v.dtype, device=v.device)
        lse = torch.empty(batch, heads, dtype=torch.float32, device=v.device)
        _shares_kernel[(programs,)](
            q, k, v, lengths, largest, total, summed, scale, past, batch, *k.stride()[:3], *v.stride()[:3],
            DIM=dim, OUT=out_dim, BD=tile(dim), **line, **sizes, **tiles, **products, num_warps=4, num_stages=3,
        )  # fmt: skip
        _join_kernel[(units,)](
            lengths, largest, total, summed, out, lse, past, batch, programs, OUT=out_dim, **line, **sizes, **tiles
        )
        ctx.save_for_backward(q, k, v, lengths, out, lse)
        ctx.scale, ctx.settings = scale, {**sizes, **tiles, **products, "DIM": dim, "OUT": out_dim, "BD": tile(dim)}
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, lengths, out, lse = ctx.saved_tensors
        past, warps = k.shape[1], 8 if max(tile(q.shape[-1]), tile(v.shape[-1])) > 128 else 4
        tiles = triton.cdiv(past, ctx.settings["TILE"])
        d_q = torch.empty(tiles, *q.shape, dtype=torch.float32, device=q.device)
        d_k = torch.empty(k.shape, dtype=k.dtype, device=k.device)
        d_v = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        _gradients_kernel[(tiles * k.shape[0] * k.shape[2],)](
            q, k, v, lengths, lse, out, gradients[0].contiguous(), d_q, d_k, d_v, ctx.scale, past,
            *k.stride()[:3], *v.stride()[:3], **ctx.settings, num_warps=warps, num_stages=1,
        )  # fmt: skip
        return d_q.sum(0).to(q.dtype), d_k, d_v, None, None


def lean_decode_triton(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, scale: float, **_: int) -> Tensor:
    """Attend once to the first `lengths` tokens of every row, none of which is looked at on the host.

    Keys and values may lie in memory as they like, up to the last axis. A length beyond the past counts as the past.
    """
    out: Tensor = _LeanDecode.apply(q.contiguous(), rows(k), rows(v), lengths, scale)
    return out
