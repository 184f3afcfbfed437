"""The kernel of `contexture.ops.gated_linear_attention`: every channel of the keys decays at its own rate.

With G the log-decays summed from a chunk's start and P_ij = sum_d q_id k_jd exp(G_id - G_jd) for j <= i:

    O = (exp(G) * Q) S + P V,    S <- diag(exp G_last) S + (exp(G_last - G) * K)' V

P is put together as in `contexture.ops.decays`, by a tree of halves: of the two halves of a block of 2, 4, ... rows
the right one reads the left one. With G_mid at the end of the left one, exp(G_i - G_mid) and exp(G_mid - G_j) are at
most one. Each level of the tree is one product of the whole chunk, masked. Gradients go down the same tree.

The gradient of a step's log-decay is the sum of q dq - k dk from it to the chunk's end, and of S dS there.

q, k, g: [batch, time, heads, K]; v, o: [.., V]; S: [batch, heads, K, V]; P: [batch, heads, chunks, size, size].
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from contexture.ops.triton.factors import factors
from contexture.ops.triton.launch import chunk, dot, handed_in, ids, rows, tile
from contexture.ops.triton.scan import memory
from contexture.ops.triton.steps import memory_step, single
from contexture.ops.triton.tiles import part_and_unit

SMALLEST = -30.0
"""A smaller log-decay counts as this: e^-30 of a memory is below what fp32 holds beside what is new."""


@triton.jit(do_not_specialize=["time"])
def _pairs(
    q,
    k,
    g,
    ids,
    summed,
    pairs,
    time,
    heads,
    q_b,
    q_t,
    q_h,
    k_b,
    k_t,
    k_h,
    g_b,
    g_t,
    g_h,
    K: tl.constexpr,
    BK: tl.constexpr,
    SIZE: tl.constexpr,
    LEVELS: tl.constexpr,
    SMALLEST: tl.constexpr,
    DOT: tl.constexpr,
    HAS_IDS: tl.constexpr,
):
    """G and P of a chunk."""
    chunks = tl.cdiv(time, SIZE)
    n, pair = part_and_unit(chunks)
    b, h = pair // heads, pair % heads
    start = n.to(tl.int64) * SIZE
    row = tl.arange(0, SIZE)
    q += b * q_b + h * q_h + start * q_t
    k += b * k_b + h * k_h + start * k_t
    g += b * g_b + h * g_h + start * g_t
    summed += ((b * time + start) * heads + h) * K
    if HAS_IDS:
        ids += b * time
    within, _reads, _writes, _keeps, present, _continues = factors(
        None, ids, start, time, 0, SIZE, False, False, HAS_IDS
    )
    valid = start + row < time
    found = tl.zeros((SIZE, SIZE), dtype=tl.float32)
    for first in range(0, K, BK):
        inner = first + tl.arange(0, BK)
        inside = (inner < K)[None, :]
        logs = tl.load(g + row[:, None] * g_t + inner[None, :], mask=valid[:, None] & inside, other=0.0)
        total = tl.cumsum(tl.maximum(logs.to(tl.float32), SMALLEST), 0)
        tl.store(summed + row[:, None] * heads * K + inner[None, :], total, mask=valid[:, None] & inside)
        tl.debug_barrier()
        queries = tl.load(q + row[:, None] * q_t + inner[None, :], mask=present[:, None] & inside, other=0.0)
        keys = tl.load(k + row[:, None] * k_t + inner[None, :], mask=present[:, None] & inside, other=0.0)
        queries, keys = queries.to(tl.float32), keys.to(tl.float32)
        found += tl.where(row[:, None] == row[None, :], tl.sum(queries * keys, axis=1)[:, None], 0.0)
        for level in tl.static_range(LEVELS):
            half = 2**level
            middle = row // (2 * half) * (2 * half) + half - 1
            at_middle = (start + middle < time)[:, None] & inside
            reference = tl.load(summed + middle[:, None] * heads * K + inner[None, :], mask=at_middle, other=0.0)
            factor = tl.exp(-tl.abs(total - reference))
            block, other = row[:, None] // half, row[None, :] // half
            products = tl.dot((queries * factor).to(DOT), tl.trans((keys * factor).to(DOT)), input_precision="tf32x3")
            found += tl.where((block % 2 == 1) & (other == block - 1), products, 0.0)
    at = pairs + (pair * chunks + n) * SIZE * SIZE
    tl.store(at + row[:, None] * SIZE + row[None, :], (found * within).to(pairs.dtype.element_ty))


@triton.jit(do_not_specialize=["time"])
def _forward(
    q,
    k,
    v,
    summed,
    ids,
    pairs,
    first,
    last,
    out,
    held,
    time,
    heads,
    q_b,
    q_t,
    q_h,
    k_b,
    k_t,
    k_h,
    v_b,
    v_t,
    v_h,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SIZE: tl.constexpr,
    DOT: tl.constexpr,
    HAS_IDS: tl.constexpr,
    HAS_FIRST: tl.constexpr,
    READS: tl.constexpr,
):
    """Outputs and the last memory, or, for backward, the memory before each chunk."""
    block, pair = part_and_unit((V + BV - 1) // BV)
    b, h = pair // heads, pair % heads
    row, inner, column = tl.arange(0, SIZE), tl.arange(0, BK), block * BV + tl.arange(0, BV)
    has_inner, has_column = inner < K, column < V
    corner, in_corner = inner[:, None] * V + column[None, :], has_inner[:, None] & has_column[None, :]
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    if HAS_IDS:
        ids += b * time
    chunks = tl.cdiv(time, SIZE)
    if HAS_FIRST:
        state = tl.load(first + pair * K * V + corner, mask=in_corner, other=0.0)
    else:
        state = tl.zeros((BK, BV), dtype=tl.float32)
    for n in range(chunks):
        start = n * SIZE
        start = start.to(tl.int64)
        _within, reads, writes, keeps, present, _continues = factors(
            None, ids, start, time, 0, SIZE, False, False, HAS_IDS
        )
        valid = start + row < time
        in_inner, in_column = present[:, None] & has_inner[None, :], valid[:, None] & has_column[None, :]
        at = summed + ((b * time + start) * heads + h) * K + row[:, None] * heads * K + inner[None, :]
        total = tl.load(at, mask=valid[:, None] & has_inner[None, :], other=0.0)
        closing = tl.minimum(start + SIZE, time) - 1
        whole = tl.load(summed + ((b * time + closing) * heads + h) * K + inner, mask=has_inner, other=0.0)
        keys = tl.load(k + start * k_t + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0)
        values = tl.load(v + start * v_t + row[:, None] * v_t + column[None, :], mask=in_column, other=0.0).to(DOT)
        if READS:
            queries = tl.load(q + start * q_t + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0)
            scores = tl.load(pairs + (pair * chunks + n) * SIZE * SIZE + row[:, None] * SIZE + row[None, :]).to(DOT)
            read = (queries.to(tl.float32) * tl.exp(total) * reads[:, None]).to(DOT)
            found = tl.dot(read, state.to(DOT), input_precision="tf32x3")
            found += tl.dot(scores, values, input_precision="tf32x3")
            at = out + ((b * time + start) * heads + h) * V + row[:, None] * heads * V + column[None, :]
            tl.store(at, found.to(out.dtype.element_ty), mask=in_column)
        else:
            tl.store(held + (pair * chunks + n) * K * V + corner, state.to(held.dtype.element_ty), mask=in_corner)
        written = (keys.to(tl.float32) * tl.exp(whole[None, :] - total) * writes[:, None]).to(DOT)
        state = state * (tl.exp(whole) * keeps)[:, None] + tl.dot(tl.trans(written), values, input_precision="tf32x3")
    if READS:
        tl.store(last + pair * K * V + corner, state, mask=in_corner)


@triton.jit(do_not_specialize=["time"])
def _backward(
    q,
    k,
    d_out,
    summed,
    ids,
    pairs,
    d_last,
    d_first,
    d_v,
    afters,
    time,
    heads,
    q_b,
    q_t,
    q_h,
    k_b,
    k_t,
    k_h,
    o_b,
    o_t,
    o_h,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SIZE: tl.constexpr,
    DOT: tl.constexpr,
    HAS_IDS: tl.constexpr,
):
    """The gradient of the values, of the memory after each chunk, and of the first."""
    block, pair = part_and_unit((V + BV - 1) // BV)
    b, h = pair // heads, pair % heads
    row, inner, column = tl.arange(0, SIZE), tl.arange(0, BK), block * BV + tl.arange(0, BV)
    has_inner, has_column = inner < K, column < V
    corner, in_corner = inner[:, None] * V + column[None, :], has_inner[:, None] & has_column[None, :]
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    d_out += b * o_b + h * o_h
    if HAS_IDS:
        ids += b * time
    chunks = tl.cdiv(time, SIZE)
    change = tl.load(d_last + pair * K * V + corner, mask=in_corner, other=0.0)
    for step in range(chunks):
        n = chunks - 1 - step
        start = (n * SIZE).to(tl.int64)
        _within, reads, writes, keeps, present, _continues = factors(
            None, ids, start, time, 0, SIZE, False, False, HAS_IDS
        )
        valid = start + row < time
        in_inner, in_column = present[:, None] & has_inner[None, :], valid[:, None] & has_column[None, :]
        at = summed + ((b * time + start) * heads + h) * K + row[:, None] * heads * K + inner[None, :]
        total = tl.load(at, mask=valid[:, None] & has_inner[None, :], other=0.0)
        closing = tl.minimum(start + SIZE, time) - 1
        whole = tl.load(summed + ((b * time + closing) * heads + h) * K + inner, mask=has_inner, other=0.0)
        queries = tl.load(q + start * q_t + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0)
        keys = tl.load(k + start * k_t + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0)
        slopes = tl.load(d_out + start * o_t + row[:, None] * o_t + column[None, :], mask=in_column, other=0.0).to(DOT)
        scores = tl.load(pairs + (pair * chunks + n) * SIZE * SIZE + row[:, None] * SIZE + row[None, :]).to(DOT)
        tl.store(afters + (pair * chunks + n) * K * V + corner, change.to(afters.dtype.element_ty), mask=in_corner)
        written = (keys.to(tl.float32) * tl.exp(whole[None, :] - total) * writes[:, None]).to(DOT)
        found = tl.dot(written, change.to(DOT), input_precision="tf32x3")
        found += tl.dot(tl.trans(scores), slopes, input_precision="tf32x3")
        at = d_v + ((b * time + start) * heads + h) * V + row[:, None] * heads * V + column[None, :]
        tl.store(at, found.to(d_v.dtype.element_ty), mask=in_column)
        read = (queries.to(tl.float32) * tl.exp(total) * reads[:, None]).to(DOT)
        change = change * (tl.exp(whole) * keeps)[:, None] + tl.dot(tl.trans(read), slopes, input_precision="tf32x3")
    tl.store(d_first + pair * K * V + corner, change, mask=in_corner)


@triton.jit(do_not_specialize=["time"])
def _gradients(
    q,
    k,
    v,
    d_out,
    summed,
    ids,
    held,
    afters,
    d_q,
    d_k,
    d_g,
    time,
    heads,
    q_b,
    q_t,
    q_h,
    k_b,
    k_t,
    k_h,
    v_b,
    v_t,
    v_h,
    o_b,
    o_t,
    o_h,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SIZE: tl.constexpr,
    LEVELS: tl.constexpr,
    DOT: tl.constexpr,
    HAS_IDS: tl.constexpr,
):
    """The gradients of q, k and g for one chunk and one block of channels."""
    blocks, chunks = (K + BK - 1) // BK, tl.cdiv(time, SIZE)
    part, pair = part_and_unit(blocks * chunks)
    n = part // blocks
    b, h = pair // heads, pair % heads
    start = n.to(tl.int64) * SIZE
    row, inner = tl.arange(0, SIZE), part % blocks * BK + tl.arange(0, BK)
    q += b * q_b + h * q_h + start * q_t
    k += b * k_b + h * k_h + start * k_t
    v += b * v_b + h * v_h + start * v_t
    d_out += b * o_b + h * o_h + start * o_t
    base = ((b * time + start) * heads + h) * K
    if HAS_IDS:
        ids += b * time
    within, reads, writes, keeps, present, _continues = factors(None, ids, start, time, 0, SIZE, False, False, HAS_IDS)
    valid, has_inner = start + row < time, inner < K
    in_inner, stored = present[:, None] & has_inner[None, :], valid[:, None] & has_inner[None, :]
    at_inner = row[:, None] * heads * K + inner[None, :]
    d_queries, d_keys = tl.zeros((SIZE, BK), dtype=tl.float32), tl.zeros((SIZE, BK), dtype=tl.float32)
    d_scores, kept = tl.zeros((SIZE, SIZE), dtype=tl.float32), tl.zeros((BK,), dtype=tl.float32)
    for first in range(0, V, BV):
        column = first + tl.arange(0, BV)
        has_column = column < V
        in_column = valid[:, None] & has_column[None, :]
        corner = (pair * chunks + n) * K * V + inner[:, None] * V + column[None, :]
        in_corner = has_inner[:, None] & has_column[None, :]
        slopes = tl.load(d_out + row[:, None] * o_t + column[None, :], mask=in_column, other=0.0).to(DOT)
        values = tl.load(v + row[:, None] * v_t + column[None, :], mask=in_column, other=0.0).to(DOT)
        before = tl.load(held + corner, mask=in_corner, other=0.0).to(DOT)
        after = tl.load(afters + corner, mask=in_corner, other=0.0).to(DOT)
        d_queries += tl.dot(slopes, tl.trans(before), input_precision="tf32x3")
        d_keys += tl.dot(values, tl.trans(after), input_precision="tf32x3")
        d_scores += tl.dot(slopes, tl.trans(values), input_precision="tf32x3")
        kept += tl.sum(before.to(tl.float32) * after.to(tl.float32), axis=1)
    total = tl.load(summed + base + at_inner, mask=stored, other=0.0)
    closing = tl.minimum(SIZE, time - start) - 1
    whole = tl.load(summed + base + closing * heads * K + inner, mask=has_inner, other=0.0)
    queries = tl.load(q + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0).to(tl.float32)
    keys = tl.load(k + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0).to(tl.float32)
    d_queries = d_queries * tl.exp(total) * reads[:, None]
    d_keys = d_keys * tl.exp(whole[None, :] - total) * writes[:, None]
    crossing = tl.exp(whole) * keeps * kept + tl.sum(keys * d_keys, axis=0)
    d_scores = d_scores * within
    own = tl.sum(tl.where(row[:, None] == row[None, :], d_scores, 0.0), axis=1)
    for level in tl.static_range(LEVELS):
        half = 2**level
        middle = row // (2 * half) * (2 * half) + half - 1
        at_middle = (start + middle < time)[:, None] & has_inner[None, :]
        reference = tl.load(summed + base + middle[:, None] * heads * K + inner[None, :], mask=at_middle, other=0.0)
        factor = tl.exp(-tl.abs(total - reference))
        block, other = row[:, None] // half, row[None, :] // half
        part = tl.where((block % 2 == 1) & (other == block - 1), d_scores, 0.0).to(DOT)
        d_queries += factor * tl.dot(part, (keys * factor).to(DOT), input_precision="tf32x3")
        d_keys += factor * tl.dot(tl.trans(part), (queries * factor).to(DOT), input_precision="tf32x3")
    # What a position reads of itself has no decay in it.
    change = tl.cumsum(queries * d_queries - keys * d_keys, 0, reverse=True) + crossing[None, :]
    d_queries += own[:, None] * keys
    d_keys += own[:, None] * queries
    tl.store(d_q + base + at_inner, d_queries.to(d_q.dtype.element_ty), mask=stored)
    tl.store(d_k + base + at_inner, d_keys.to(d_k.dtype.element_ty), mask=stored)
    tl.store(d_g + base + at_inner, change, mask=stored)


class _Call:
    """The tensors of one call and what every launch on them says."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, numbers: Tensor | None) -> None:
        self.q, self.k, self.v, self.g, self.ids = rows(q), rows(k), rows(v), rows(g), numbers
        self.batch, self.time, self.heads, self.inner = q.shape
        self.columns, self.width = v.shape[-1], tile(self.inner)
        large = self.width > 128 or v.element_size() == 4
        self.size = chunk(self.time, 32 if large else 64)
        self.pairs, self.chunks = self.batch * self.heads, triton.cdiv(self.time, self.size)
        self.scanned = min(tile(self.columns), 32 if large else 64)
        self.few = min(self.width, 32 if large else 64)
        self.flags = {"SIZE": self.size, "DOT": dot(v.dtype), "HAS_IDS": numbers is not None, "num_warps": 8}
        self.levels, self.num_stages = self.size.bit_length() - 1, 1 if large else 2

    def room(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Fresh memory."""
        return torch.empty(shape, dtype=dtype or self.v.dtype, device=self.v.device)

    def find_pairs(self) -> tuple[Tensor, Tensor]:
        """Log-decays summed from each chunk's start, and P."""
        summed = self.room(self.batch, self.time, self.heads, self.inner, dtype=torch.float32)
        pairs = self.room(self.pairs, self.chunks, self.size, self.size)
        _pairs[(self.chunks * self.pairs,)](
            self.q,
            self.k,
            self.g,
            self.ids,
            summed,
            pairs,
            self.time,
            self.heads,
            *self.q.stride()[:3],
            *self.k.stride()[:3],
            *self.g.stride()[:3],
            K=self.inner,
            BK=self.few,
            LEVELS=self.levels,
            SMALLEST=SMALLEST,
            num_stages=1,
            **self.flags,
        )
        return summed, pairs

    def forward(
        self, summed: Tensor, pairs: Tensor, first: Tensor | None, *, reads: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Outputs and the last memory, or nothing and the memory before each chunk."""
        if reads:
            out: Tensor | None = self.room(self.batch, self.time, self.heads, self.columns)
            memories = memory(self.q, self.inner, self.columns)
        else:
            out, memories = None, self.room(self.pairs, self.chunks, self.inner, self.columns)
        _forward[(triton.cdiv(self.columns, self.scanned) * self.pairs,)](
            self.q,
            self.k,
            self.v,
            summed,
            self.ids,
            pairs,
            first,
            *((memories, out, None) if reads else (None, None, memories)),
            self.time,
            self.heads,
            *self.q.stride()[:3],
            *self.k.stride()[:3],
            *self.v.stride()[:3],
            K=self.inner,
            V=self.columns,
            BK=self.width,
            BV=self.scanned,
            HAS_FIRST=first is not None,
            READS=reads,
            num_stages=self.num_stages,
            **self.flags,
        )
        return out, memories

    def backward(self, summed: Tensor, pairs: Tensor, d_out: Tensor, d_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of the values, of the memory after every chunk, and of the first."""
        d_v = self.room(self.batch, self.time, self.heads, self.columns)
        afters = self.room(self.pairs, self.chunks, self.inner, self.columns)
        d_first = memory(self.q, self.inner, self.columns)
        _backward[(triton.cdiv(self.columns, self.scanned) * self.pairs,)](
            self.q,
            self.k,
            d_out,
            summed,
            self.ids,
            pairs,
            d_last,
            d_first,
            d_v,
            afters,
            self.time,
            self.heads,
            *self.q.stride()[:3],
            *self.k.stride()[:3],
            *d_out.stride()[:3],
            K=self.inner,
            V=self.columns,
            BK=self.width,
            BV=self.scanned,
            num_stages=self.num_stages,
            **self.flags,
        )
        return d_v, afters, d_first

    def gradients(self, summed: Tensor, d_out: Tensor, held: Tensor, afters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of q, k and g."""
        d_q, d_k = (self.room(self.batch, self.time, self.heads, self.inner) for _ in range(2))
        d_g = torch.empty_like(summed)
        _gradients[(triton.cdiv(self.inner, self.few) * self.chunks * self.pairs,)](
            self.q,
            self.k,
            self.v,
            d_out,
            summed,
            self.ids,
            held,
            afters,
            d_q,
            d_k,
            d_g,
            self.time,
            self.heads,
            *self.q.stride()[:3],
            *self.k.stride()[:3],
            *self.v.stride()[:3],
            *d_out.stride()[:3],
            K=self.inner,
            V=self.columns,
            BK=self.few,
            BV=min(tile(self.columns), 32),
            LEVELS=self.levels,
            num_stages=1,
            **self.flags,
        )
        return d_q, d_k, d_g


class GatedChunks(torch.autograd.Function):
    """Gated linear attention with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, first: Tensor | None, numbers: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs and the last memory."""
        call = _Call(q, k, v, g, numbers)
        out, last = call.forward(*call.find_pairs(), first, reads=True)
        ctx.save_for_backward(q, k, v, g, first, numbers)
        assert out is not None
        return out, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        """The chunks' memories once more, the scan back, and gradients chunk by chunk."""
        q, k, v, g, first, numbers = ctx.saved_tensors
        d_out, d_last = rows(d_out), d_last.contiguous()
        call = _Call(q, k, v, g, numbers)
        summed, pairs = call.find_pairs()
        _, held = call.forward(summed, pairs, first, reads=False)
        d_v, afters, d_first = call.backward(summed, pairs, d_out, d_last)
        d_q, d_k, d_g = call.gradients(summed, d_out, held, afters)
        return d_q, d_k, d_v, d_g, d_first if ctx.needs_input_grad[4] else None, None


def gated_linear_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One log-decay per channel of the keys."""
    if single(q, k, v, g, initial_state, segments=segments):
        return memory_step(q, k, v, initial_state, log_decay=g)
    rows = q, k, v, g.to(torch.float32)
    first = None if initial_state is None else handed_in(initial_state)
    out, state = GatedChunks.apply(*rows, first, ids(segments))
    return out, state
