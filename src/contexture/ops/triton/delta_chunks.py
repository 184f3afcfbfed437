"""The kernels of both delta rules: `contexture.ops.delta_chunks` has the mathematics and the names of the factors.

Over a chunk, with rates b, the memory S before it and B = tril(within * K K', -1), in the form that scales rows:

    T = (I + diag(b) B)^-1,    U = T diag(b) (V - (reads * K) S)
    O = (reads * Q) S + tril(within * Q K') U,    S <- keeps S + (writes * K)' U

and backward, with the gradient dS of the memory after the chunk:

    R = T' (tril(within * Q K')' dO + (writes * K) dS),    dV = b R
    dS <- keeps dS + (reads * Q)' dO - (reads * K)' dV

    X = tril(R U', -1),    dB = -b X,    db = rows of R * (V - (reads * K) S) - X * B

Four kernels: T of every chunk at once; the scan forward in time, in which a program holds a block of the memory's
columns; and, in `contexture.ops.triton.delta_gradients`, the scan backward in time, and the gradients that need both
memories, of every chunk at once. Backward runs the first two again instead of keeping what they found. T is found by
substitution inside blocks of 16 rows, all blocks at once, and by products between them: with N = T_blocks A below the
blocks, N^4 = 0 and T = (I - N)(I + N^2) T_blocks.

q, k: [batch, time, heads, K]; v, o, U, R: [.., V]; b, log a: [batch, time, heads]; S, dS: [batch, heads, K, V];
T: [batch, heads, chunks, size, size].
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from contexture.ops.triton.delta_gradients import backward_kernel, gradients_kernel
from contexture.ops.triton.factors import factors
from contexture.ops.triton.launch import CHUNK, chunk, dot, handed_in, ids, rows, tile
from contexture.ops.triton.scan import memory
from contexture.ops.triton.tiles import part_and_unit

BLOCK = 16


@triton.jit(do_not_specialize=["time"])
def _invert(
    k,
    rate,
    log_decay,
    ids,
    solver,
    time,
    heads,
    k_b,
    k_t,
    k_h,
    r_b,
    r_t,
    r_h,
    g_b,
    g_t,
    g_h,
    K: tl.constexpr,
    BK: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    HAS_DECAY: tl.constexpr,
    HAS_IDS: tl.constexpr,
):
    chunks = tl.cdiv(time, SIZE)
    n, pair = part_and_unit(chunks)
    b, h = pair // heads, pair % heads
    start = n.to(tl.int64) * SIZE
    row, inner = tl.arange(0, SIZE), tl.arange(0, BK)
    if HAS_DECAY:
        log_decay += b * g_b + h * g_h
    if HAS_IDS:
        ids += b * time
    within, _reads, _writes, _keeps, present, _continues = factors(
        log_decay, ids, start, time, g_t, SIZE, False, HAS_DECAY, HAS_IDS
    )
    in_inner = present[:, None] & (inner < K)[None, :]
    keys = tl.load(k + b * k_b + h * k_h + (start + row)[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0)
    keys = keys.to(DOT)
    rates = tl.load(rate + b * r_b + h * r_h + (start + row) * r_t, mask=present, other=0.0).to(tl.float32)
    triangle = tl.dot(keys, tl.trans(keys), input_precision="tf32x3") * within * rates[:, None]
    triangle = tl.where(row[:, None] > row[None, :], triangle, 0.0)

    BLOCKS: tl.constexpr = SIZE // BLOCK
    one, other = tl.arange(0, BLOCKS), tl.arange(0, BLOCK)
    same = one[:, None, None, None] == one[None, None, :, None]
    corners = tl.sum(tl.where(same, tl.reshape(triangle, (BLOCKS, BLOCK, BLOCKS, BLOCK)), 0.0), axis=2)
    solved = tl.zeros((BLOCKS, BLOCK, BLOCK), dtype=tl.float32)
    solved += tl.where(other[:, None] == other[None, :], 1.0, 0.0)[None, :, :]
    for i in range(1, BLOCK):
        at = (other == i)[None, :, None]
        left = tl.sum(tl.where(at, corners, 0.0), axis=1)
        solved -= tl.where(at, tl.sum(left[:, :, None] * solved, axis=1)[:, None, :], 0.0)
    blocks = tl.where(same, tl.broadcast_to(solved[:, :, None, :], (BLOCKS, BLOCK, BLOCKS, BLOCK)), 0.0)
    inverse = tl.reshape(blocks, (SIZE, SIZE))
    if BLOCKS > 1:
        below = tl.where(row[:, None] // BLOCK > row[None, :] // BLOCK, triangle, 0.0)
        step = tl.dot(inverse, below, input_precision=PRECISION)
        back = tl.where(row[:, None] == row[None, :], 1.0, 0.0) - step
        if BLOCKS > 2:
            back += tl.dot(back, tl.dot(step, step, input_precision=PRECISION), input_precision=PRECISION)
        inverse = tl.dot(back, inverse, input_precision=PRECISION)
    at = solver + (pair * chunks + n) * SIZE * SIZE
    tl.store(at + row[:, None] * SIZE + row[None, :], inverse.to(solver.dtype.element_ty))


@triton.jit(do_not_specialize=["time"])
def _forward(
    q,
    k,
    v,
    rate,
    log_decay,
    ids,
    solver,
    first,
    last,
    out,
    news,
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
    r_b,
    r_t,
    r_h,
    g_b,
    g_t,
    g_h,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SIZE: tl.constexpr,
    DOT: tl.constexpr,
    HAS_DECAY: tl.constexpr,
    HAS_IDS: tl.constexpr,
    HAS_FIRST: tl.constexpr,
    READS: tl.constexpr,
):
    """Outputs and the last memory, or, for backward, what is written at each step and the memory before each chunk."""
    block, pair = part_and_unit((V + BV - 1) // BV)
    b, h = pair // heads, pair % heads
    row, inner, column = tl.arange(0, SIZE), tl.arange(0, BK), block * BV + tl.arange(0, BV)
    has_inner, has_column = inner < K, column < V
    corner, in_corner = inner[:, None] * V + column[None, :], has_inner[:, None] & has_column[None, :]
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    rate += b * r_b + h * r_h
    if HAS_DECAY:
        log_decay += b * g_b + h * g_h
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
        within, reads, writes, keeps, present, _continues = factors(
            log_decay, ids, start, time, g_t, SIZE, False, HAS_DECAY, HAS_IDS
        )
        valid = start + row < time
        in_inner, in_column = present[:, None] & has_inner[None, :], valid[:, None] & has_column[None, :]
        keys = tl.load(k + start * k_t + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
        values = tl.load(v + start * v_t + row[:, None] * v_t + column[None, :], mask=in_column, other=0.0)
        rates = tl.load(rate + (start + row) * r_t, mask=present, other=0.0).to(tl.float32)
        solve = tl.load(solver + (pair * chunks + n) * SIZE * SIZE + row[:, None] * SIZE + row[None, :]).to(DOT)
        recalled = state.to(DOT)
        error = values.to(tl.float32) - tl.dot(keys, recalled, input_precision="tf32x3") * reads[:, None]
        written = tl.dot(solve, (error * rates[:, None]).to(DOT), input_precision="tf32x3")
        at = ((b * time + start) * heads + h) * V + row[:, None] * heads * V + column[None, :]
        if READS:
            queries = tl.load(q + start * q_t + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
            scores = (tl.dot(queries, tl.trans(keys), input_precision="tf32x3") * within).to(DOT)
            found = tl.dot(queries, recalled, input_precision="tf32x3") * reads[:, None]
            found += tl.dot(scores, written.to(DOT), input_precision="tf32x3")
            tl.store(out + at, found.to(out.dtype.element_ty), mask=in_column)
        else:
            tl.store(news + at, written.to(news.dtype.element_ty), mask=in_column)
            tl.store(held + (pair * chunks + n) * K * V + corner, state.to(held.dtype.element_ty), mask=in_corner)
        kept = (written * writes[:, None]).to(DOT)
        state = state * keeps + tl.dot(tl.trans(keys), kept, input_precision="tf32x3")
    if READS:
        tl.store(last + pair * K * V + corner, state, mask=in_corner)


class Cut(NamedTuple):
    """A chunk's steps; a scan's columns of the memory to a program, warps and stages; and for the gradients of a chunk
    the key channels of a tile, the columns that are read at a time, and warps."""

    size: int
    scanned: int
    num_warps: int
    num_stages: int
    tile: int
    passed: int
    tile_warps: int


def cut(time: int, inner: int, columns: int, itemsize: int) -> Cut:
    """The one configuration for a size of tile and of numbers."""
    large = inner > 128 or itemsize == 4
    size = chunk(time, 32 if large else 64)
    scan = min(columns, 32 if large else 64), 4 if inner <= 64 else 8, 1 if large else 2
    whole = size == CHUNK and inner > 64
    tile = inner if whole else min(inner, 64 if size < CHUNK else 32)
    return Cut(size, *scan, tile, min(columns, 64 // itemsize), 8 if whole else 4)


class _Call:
    """The tensors of one call and what every launch on them says."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, rate: Tensor, log_decay: Tensor | None, numbers: Tensor | None
    ) -> None:
        self.q, self.k, self.v, self.rate, self.log_decay, self.ids = (
            rows(q),
            rows(k),
            rows(v),
            rate,
            log_decay,
            numbers,
        )
        self.batch, self.time, self.heads, self.inner = q.shape
        self.columns = v.shape[-1]
        self.cut = cut(self.time, tile(self.inner), tile(self.columns), v.element_size())
        self.pairs, self.chunks = self.batch * self.heads, triton.cdiv(self.time, self.cut.size)
        self.flags = {
            "SIZE": self.cut.size,
            "DOT": dot(v.dtype),
            "HAS_DECAY": log_decay is not None,
            "HAS_IDS": numbers is not None,
            "num_warps": self.cut.num_warps,
        }
        self.strides = (*rate.stride(), *((0, 0, 0) if log_decay is None else log_decay.stride()))
        self.sizes = {"K": self.inner, "V": self.columns, "BK": tile(self.inner)}

    def room(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Fresh memory."""
        return torch.empty(shape, dtype=dtype or self.v.dtype, device=self.v.device)

    def invert(self) -> Tensor:
        """T of every chunk."""
        solver = self.room(self.pairs, self.chunks, self.cut.size, self.cut.size)
        _invert[(self.chunks * self.pairs,)](
            self.k,
            self.rate,
            self.log_decay,
            self.ids,
            solver,
            self.time,
            self.heads,
            *self.k.stride()[:3],
            *self.strides,
            K=self.inner,
            BK=tile(self.inner),
            BLOCK=BLOCK,
            PRECISION="tf32x3" if self.v.element_size() == 4 else "tf32",
            num_stages=1,
            **self.flags,
        )
        return solver

    def forward(self, solver: Tensor, first: Tensor | None, *, reads: bool) -> tuple[Tensor, Tensor]:
        """Outputs and the last memory, or what is written at each step and the memory before each chunk."""
        main = self.room(self.batch, self.time, self.heads, self.columns)
        if reads:
            other = memory(self.q, self.inner, self.columns)
        else:
            other = self.room(self.pairs, self.chunks, self.inner, self.columns)
        _forward[(triton.cdiv(self.columns, self.cut.scanned) * self.pairs,)](
            self.q,
            self.k,
            self.v,
            self.rate,
            self.log_decay,
            self.ids,
            solver,
            first,
            *((other, main, None, None) if reads else (None, None, main, other)),
            self.time,
            self.heads,
            *self.q.stride()[:3],
            *self.k.stride()[:3],
            *self.v.stride()[:3],
            *self.strides,
            BV=self.cut.scanned,
            HAS_FIRST=first is not None,
            READS=reads,
            num_stages=self.cut.num_stages,
            **self.sizes,
            **self.flags,
        )
        return main, other

    def backward(self, solver: Tensor, d_out: Tensor, d_last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R of every step, the gradient of the memory after every chunk, and that of the first."""
        moves = self.room(self.batch, self.time, self.heads, self.columns)
        afters = self.room(self.pairs, self.chunks, self.inner, self.columns)
        d_first = memory(self.q, self.inner, self.columns)
        backward_kernel[(triton.cdiv(self.columns, self.cut.scanned) * self.pairs,)](
            self.q,
            self.k,
            d_out,
            self.rate,
            self.log_decay,
            self.ids,
            solver,
            d_last,
            d_first,
            moves,
            afters,
            self.time,
            self.heads,
            *self.q.stride()[:3],
            *self.k.stride()[:3],
            *d_out.stride()[:3],
            *self.strides,
            BV=self.cut.scanned,
            num_stages=self.cut.num_stages,
            **self.sizes,
            **self.flags,
        )
        return moves, afters, d_first

    def gradients(
        self, d_out: Tensor, news: Tensor, moves: Tensor, held: Tensor, afters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """The gradients of q, k, v, the rates and the log-decays."""
        d_q, d_k = (self.room(self.batch, self.time, self.heads, self.inner) for _ in range(2))
        d_v = self.room(self.batch, self.time, self.heads, self.columns)
        d_rate = self.room(self.batch, self.time, self.heads, dtype=torch.float32)
        d_decay = None if self.log_decay is None else torch.empty_like(d_rate)
        gradients_kernel[(self.chunks * self.pairs,)](
            self.q,
            self.k,
            self.v,
            d_out,
            self.rate,
            self.log_decay,
            self.ids,
            news,
            moves,
            held,
            afters,
            d_q,
            d_k,
            d_v,
            d_rate,
            d_decay,
            self.time,
            self.heads,
            *self.q.stride()[:3],
            *self.k.stride()[:3],
            *self.v.stride()[:3],
            *d_out.stride()[:3],
            *self.strides,
            K=self.inner,
            V=self.columns,
            BK=self.cut.tile,
            STEP=self.cut.passed,
            num_stages=1,
            **self.flags | {"num_warps": self.cut.tile_warps},
        )
        return d_q, d_k, d_v, d_rate, d_decay


class DeltaChunks(torch.autograd.Function):
    """The delta rule, or with log-decays the gated one, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rate: Tensor,
        log_decay: Tensor | None,
        first: Tensor | None,
        numbers: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs and the last memory."""
        call = _Call(q, k, v, rate, log_decay, numbers)
        out, last = call.forward(call.invert(), first, reads=True)
        ctx.save_for_backward(q, k, v, rate, log_decay, first, numbers)
        return out, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        """The chunks' memories once more, the scan back, and gradients chunk by chunk."""
        q, k, v, rate, log_decay, first, numbers = ctx.saved_tensors
        d_out, d_last = rows(d_out), d_last.contiguous()
        call = _Call(q, k, v, rate, log_decay, numbers)
        solver = call.invert()
        news, held = call.forward(solver, first, reads=False)
        moves, afters, d_first = call.backward(solver, d_out, d_last)
        d_q, d_k, d_v, d_rate, d_decay = call.gradients(d_out, news, moves, held, afters)
        return d_q, d_k, d_v, d_rate, d_decay, d_first if ctx.needs_input_grad[5] else None, None


def delta_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    initial_state: Tensor | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last memory of the delta rule, or of the gated one, with tensors laid out as the ops' are."""
    decay = None if log_decay is None else log_decay.to(torch.float32)
    rows = q, k, v, beta.to(torch.float32), decay
    first = None if initial_state is None else handed_in(initial_state)
    out, state = DeltaChunks.apply(*rows, first, ids(segments))
    return out, state
