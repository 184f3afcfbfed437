"""The kernels of `contexture.ops.routed_linear_attention`: linear attention over several memories.

Torch sorts (token, route) pairs by partition and makes a table of which pair stands in which slot, every partition
beginning at a chunk's edge. A program takes one partition of one head through its chunks with the memory in registers,
reading rows of q, k and v where they lie: tokens are never moved. Outputs go to their (token, route) and are summed
over routes. Backward goes through the chunks once forwards (the memory again, for queries) and once backwards (what is
asked of the memory, for keys and values).

Bound by bytes: num_routes * 4 * dim * 2 B a token and head (batch 8, 16 heads of 128, length 8,192, one route: 1.074 GB
= 358 us at 3.0 TB/s, as linear attention; memories of 32 partitions 268 MB each way besides), 8 * dim * dim + 4 * 64 *
dim FLOPs a pair. Chunks of a partition follow each other, so that time goes with the fullest partition.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.chunks import silence
from contexture.ops.routing import places, routes
from contexture.ops.segments import runs
from contexture.ops.triton.launch import chunk, dot, rows, tile
from contexture.ops.triton.tiles import load_rows, part_and_unit, strides_of

COLUMNS = 64
"""How many columns of a memory a program holds, if all of them are too many."""


@triton.jit
def _pairs(items_ptr, shares_ptr, ids_ptr, row, n, slots, time, num_routes, C: tl.constexpr, PACKED: tl.constexpr):
    """The pairs of one chunk: which, whose tokens, with what shares, in which stretches, and the last of these."""
    item = tl.load(items_ptr + row * slots + n * C + tl.arange(0, C))
    filled = item >= 0
    token = tl.where(filled, item // num_routes, 0)
    share = tl.load(shares_ptr + row * time * num_routes + item, mask=filled, other=0.0).to(tl.float32)
    stretch = tl.where(filled, 0, -1)
    if PACKED:
        stretch = tl.load(ids_ptr + row * time + token, mask=filled, other=-1)
    return item, token, share, filled, stretch, tl.max(stretch, 0)


@triton.jit
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, shares_ptr, items_ptr, firsts_ptr, ends_ptr, ids_ptr, initial_ptr, out_ptr, last_ptr,
    q_strides, k_strides, v_strides, time, heads, partitions, slots, num_routes,
    DIM: tl.constexpr, OUT: tl.constexpr, C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, PACKED: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """One partition of one head, some columns of its memory."""
    blocks = (OUT + BE - 1) // BE
    which, unit = part_and_unit(blocks * partitions)
    some, p = which % blocks, which // blocks
    row, head = unit // heads, unit % heads
    d, e, i = tl.arange(0, BD), some * BE + tl.arange(0, BE), tl.arange(0, C)
    in_d, in_e = d < DIM, e < OUT
    at = (((row * partitions + p) * heads + head) * DIM + d[:, None]) * OUT + e[None, :]
    shown = in_d[:, None] & in_e[None, :]
    state = tl.load(initial_ptr + at, mask=shown, other=0.0)
    first, end = tl.load(firsts_ptr + row * partitions + p), tl.load(ends_ptr + row * partitions + p)
    before = first * 0
    for n in range(first, end + 1):
        item, token, share, filled, stretch, last = _pairs(
            items_ptr, shares_ptr, ids_ptr, row, n, slots, time, num_routes, C, PACKED
        )
        of_d, of_e = filled[:, None] & in_d[None, :], filled[:, None] & in_e[None, :]
        q = (load_rows(q_ptr, q_strides, row, head, token, d, of_d).to(tl.float32) * share[:, None]).to(DOT)
        k = (load_rows(k_ptr, k_strides, row, head, token, d, of_d).to(tl.float32) * share[:, None]).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, token, e, of_e).to(DOT)
        within = (i[:, None] >= i[None, :]) & (stretch[:, None] == stretch[None, :])
        scores = tl.where(within, tl.dot(q, tl.trans(k), input_precision="tf32x3"), 0.0)
        out = tl.dot(q, state.to(DOT), input_precision="tf32x3")
        out = tl.where((stretch == before)[:, None], out, 0.0)
        out += tl.dot(scores.to(DOT), v, input_precision="tf32x3")
        written = tl.where((stretch == last)[:, None], k, 0.0).to(DOT)
        state = tl.where(last == before, state, 0.0) + tl.dot(tl.trans(written), v, input_precision="tf32x3")
        place = (row * time * num_routes + item[:, None]) * heads + head
        tl.store(out_ptr + place * OUT + e[None, :], out.to(out_ptr.dtype.element_ty), mask=of_e)
        before = last
    if PACKED:
        state = tl.where(tl.load(ids_ptr + row * time + time - 1) == before, state, 0.0)
    tl.store(last_ptr + at, state, mask=shown)


@triton.jit
def _queries_kernel(
    q_ptr, k_ptr, v_ptr, shares_ptr, items_ptr, firsts_ptr, ends_ptr, ids_ptr, initial_ptr, d_out_ptr, d_q_ptr,
    d_shares_ptr, q_strides, k_strides, v_strides, time, heads, partitions, slots, num_routes, pairs,
    DIM: tl.constexpr, OUT: tl.constexpr, C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, PACKED: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """The memory once more, and what the outputs of some columns ask of queries and shares."""
    blocks = (OUT + BE - 1) // BE
    which, unit = part_and_unit(blocks * partitions)
    some, p = which % blocks, which // blocks
    row, head = unit // heads, unit % heads
    d, e, i = tl.arange(0, BD), some * BE + tl.arange(0, BE), tl.arange(0, C)
    in_d, in_e = d < DIM, e < OUT
    at = (((row * partitions + p) * heads + head) * DIM + d[:, None]) * OUT + e[None, :]
    state = tl.load(initial_ptr + at, mask=in_d[:, None] & in_e[None, :], other=0.0)
    first, end = tl.load(firsts_ptr + row * partitions + p), tl.load(ends_ptr + row * partitions + p)
    before = first * 0
    for n in range(first, end + 1):
        item, token, share, filled, stretch, last = _pairs(
            items_ptr, shares_ptr, ids_ptr, row, n, slots, time, num_routes, C, PACKED
        )
        of_d, of_e = filled[:, None] & in_d[None, :], filled[:, None] & in_e[None, :]
        q = load_rows(q_ptr, q_strides, row, head, token, d, of_d).to(tl.float32)
        k = (load_rows(k_ptr, k_strides, row, head, token, d, of_d).to(tl.float32) * share[:, None]).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, token, e, of_e).to(DOT)
        place = row * time * num_routes + item
        d_out = tl.load(
            d_out_ptr + ((row * time + token[:, None]) * heads + head) * OUT + e[None, :], mask=of_e, other=0.0
        ).to(DOT)
        within = (i[:, None] >= i[None, :]) & (stretch[:, None] == stretch[None, :])
        d_scores = tl.where(within, tl.dot(d_out, tl.trans(v), input_precision="tf32x3"), 0.0)
        d_q = tl.dot(d_out, tl.trans(state.to(DOT)), input_precision="tf32x3")
        d_q = tl.where((stretch == before)[:, None], d_q, 0.0)
        d_q += tl.dot(d_scores.to(DOT), k, input_precision="tf32x3")
        part = (some * pairs + place) * heads + head
        tl.store(d_shares_ptr + part, tl.sum(q * d_q, 1), mask=filled)
        tl.store(d_q_ptr + part[:, None] * DIM + d[None, :], d_q * share[:, None], mask=of_d)
        written = tl.where((stretch == last)[:, None], k, 0.0).to(DOT)
        state = tl.where(last == before, state, 0.0) + tl.dot(tl.trans(written), v, input_precision="tf32x3")
        before = last


@triton.jit
def _keys_kernel(
    q_ptr, k_ptr, v_ptr, shares_ptr, items_ptr, firsts_ptr, ends_ptr, ids_ptr, d_out_ptr, d_last_ptr, d_k_ptr,
    d_v_ptr, d_shares_ptr, d_initial_ptr,
    q_strides, k_strides, v_strides, time, heads, partitions, slots, num_routes, pairs,
    DIM: tl.constexpr, OUT: tl.constexpr, C: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, PACKED: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Backwards through the chunks with what is asked of the memory: gradients of keys, values and shares."""
    blocks = (OUT + BE - 1) // BE
    which, unit = part_and_unit(blocks * partitions)
    some, p = which % blocks, which // blocks
    row, head = unit // heads, unit % heads
    d, e, i = tl.arange(0, BD), some * BE + tl.arange(0, BE), tl.arange(0, C)
    in_d, in_e = d < DIM, e < OUT
    at = (((row * partitions + p) * heads + head) * DIM + d[:, None]) * OUT + e[None, :]
    shown = in_d[:, None] & in_e[None, :]
    d_state = tl.load(d_last_ptr + at, mask=shown, other=0.0)
    first, end = tl.load(firsts_ptr + row * partitions + p), tl.load(ends_ptr + row * partitions + p)
    if PACKED:
        last = first * 0
        if end >= first:
            _, _, _, _, _, last = _pairs(items_ptr, shares_ptr, ids_ptr, row, end, slots, time, num_routes, C, PACKED)
        d_state = tl.where(tl.load(ids_ptr + row * time + time - 1) == last, d_state, 0.0)
    for back in range(end + 1 - first):
        n = end - back
        item, token, share, filled, stretch, last = _pairs(
            items_ptr, shares_ptr, ids_ptr, row, n, slots, time, num_routes, C, PACKED
        )
        before = last * 0
        if PACKED:  # noqa: SIM102 (one is a constant)
            if n > first:
                _, _, _, _, _, before = _pairs(
                    items_ptr, shares_ptr, ids_ptr, row, n - 1, slots, time, num_routes, C, PACKED
                )
        of_d, of_e = filled[:, None] & in_d[None, :], filled[:, None] & in_e[None, :]
        q = (load_rows(q_ptr, q_strides, row, head, token, d, of_d).to(tl.float32) * share[:, None]).to(DOT)
        k = load_rows(k_ptr, k_strides, row, head, token, d, of_d).to(tl.float32)
        scaled = (k * share[:, None]).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, token, e, of_e).to(DOT)
        place = row * time * num_routes + item
        d_out = tl.load(
            d_out_ptr + ((row * time + token[:, None]) * heads + head) * OUT + e[None, :], mask=of_e, other=0.0
        ).to(DOT)
        within = (i[:, None] >= i[None, :]) & (stretch[:, None] == stretch[None, :])
        scores = tl.where(within, tl.dot(q, tl.trans(scaled), input_precision="tf32x3"), 0.0)
        d_scores = tl.where(within, tl.dot(d_out, tl.trans(v), input_precision="tf32x3"), 0.0)
        writes = (stretch == last)[:, None]
        asked = d_state.to(DOT)
        d_v = tl.where(writes, tl.dot(scaled, asked, input_precision="tf32x3"), 0.0)
        d_v += tl.dot(tl.trans(scores.to(DOT)), d_out, input_precision="tf32x3")
        d_k = tl.where(writes, tl.dot(v, tl.trans(asked), input_precision="tf32x3"), 0.0)
        d_k += tl.dot(tl.trans(d_scores.to(DOT)), q, input_precision="tf32x3")
        part = (some * pairs + place) * heads + head
        tl.store(d_shares_ptr + part, tl.sum(k * d_k, 1), mask=filled)
        tl.store(d_k_ptr + part[:, None] * DIM + d[None, :], d_k * share[:, None], mask=of_d)
        of_v = (place[:, None] * heads + head) * OUT + e[None, :]
        tl.store(d_v_ptr + of_v, d_v.to(d_v_ptr.dtype.element_ty), mask=of_e)
        read = tl.where((stretch == before)[:, None], q, 0.0).to(DOT)
        d_state = tl.where(last == before, d_state, 0.0)
        d_state += tl.dot(tl.trans(read), d_out, input_precision="tf32x3")
    tl.store(d_initial_ptr + at, d_state, mask=shown)


class _Routed(torch.autograd.Function):
    """q, k: [batch, time, heads, dim]; v: [.., out]; shares: [batch, time, routes]; items: int32 [batch, slots], the
    pair token * routes + route in each slot or -1; firsts, ends: int32 [batch, partitions], chunks; ids: stretches."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        shares: Tensor,
        initial: Tensor,
        items: Tensor,
        firsts: Tensor,
        ends: Tensor,
        ids: Tensor | None,
        size: int,
    ) -> tuple[Tensor, Tensor]:
        (batch, time, heads, dim), out_dim, num_routes = q.shape, v.shape[-1], shares.shape[-1]
        whole = tile(dim) * tile(out_dim) <= 128 * 128
        settings = {
            "DIM": dim, "OUT": out_dim, "C": size, "BD": tile(dim), "BE": tile(out_dim) if whole else COLUMNS,
            "PACKED": ids is not None, "DOT": dot(v.dtype),
        }  # fmt: skip
        blocks = triton.cdiv(out_dim, settings["BE"])
        grid = (blocks * initial.shape[1] * batch * heads,)
        launch = (
            *(strides_of(x) for x in (q, k, v)), time, heads, initial.shape[1], items.shape[1], num_routes
        )  # fmt: skip
        tables = shares, items, firsts, ends, items if ids is None else ids
        parts = torch.empty(batch, time, num_routes, heads, out_dim, dtype=v.dtype, device=v.device)
        last = torch.empty(initial.shape, dtype=torch.float32, device=v.device)
        # Rows of 256 numbers in fp32, read a chunk ahead, would not fit into an SM.
        how = {"num_warps": 8, "num_stages": 1 if max(dim, out_dim) > 128 and v.element_size() == 4 else 2}
        _forward_kernel[grid](q, k, v, *tables, initial, parts, last, *launch, **settings, **how)
        ctx.save_for_backward(q, k, v, *tables, initial)
        ctx.launch = grid, blocks, launch, settings
        return parts.squeeze(2) if num_routes == 1 else parts.sum(2), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *tables, initial = ctx.saved_tensors
        grid, blocks, launch, settings = ctx.launch
        d_out, d_last = gradients[0].contiguous(), gradients[1].contiguous()
        (heads, dim), shares = q.shape[2:], tables[0]
        lead, pairs = (blocks, *shares.shape, heads), shares.numel()
        empty: dict[str, Any] = {"dtype": torch.float32, "device": q.device}
        d_q, d_k = (torch.empty(*lead, dim, **empty) for _ in range(2))
        read, written = (torch.empty(lead, **empty) for _ in range(2))
        d_v = torch.empty(*shares.shape, heads, v.shape[-1], dtype=v.dtype, device=v.device)
        d_initial = torch.empty(initial.shape, **empty)
        how: dict[str, Any] = {**settings, "num_warps": 8, "num_stages": 1}
        _queries_kernel[grid](q, k, v, *tables, initial, d_out, d_q, read, *launch, pairs, **how)
        _keys_kernel[grid](q, k, v, *tables, d_out, d_last, d_k, d_v, written, d_initial, *launch, pairs, **how)
        d_shares = (read + written).sum((0, 4)).to(shares.dtype)
        d_q, d_k = (x.sum((0, 3)).to(q.dtype) for x in (d_q, d_k))
        return d_q, d_k, d_v.sum(2), d_shares, d_initial, None, None, None, None, None


def routed_linear_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shares: Tensor,
    *,
    num_routes: int,
    initial_state: Tensor,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Every partition through its own chunks, rows read where they lie."""
    time, partitions = q.shape[1], shares.shape[-1]
    size = chunk(-(-time * num_routes // partitions))
    values, choices = routes(shares, num_routes)
    with torch.no_grad():
        put = places(values, choices, partitions, size)
        pairs = torch.arange(put.slots.shape[1], device=q.device, dtype=torch.int32).expand_as(put.slots)
        items = torch.full_like(put.tokens, -1, dtype=torch.int32).scatter(1, put.slots, pairs)
        numbers = torch.arange(partitions, device=q.device).expand(len(q), -1).contiguous()
        firsts = torch.searchsorted(put.partitions, numbers).to(torch.int32)
        ids = None if segments is None else runs(segments).to(torch.int32)
    tensors = rows(q), rows(silence(k, segments)), rows(v), values.contiguous(), initial_state.float().contiguous()
    out, state = _Routed.apply(*tensors, items, firsts, put.ends.to(torch.int32).contiguous(), ids, size)
    return silence(out, segments), state
