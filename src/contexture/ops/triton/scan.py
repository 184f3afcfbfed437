"""One kernel for linear attention with and without a decay, in both directions of time.

    forward in time:    S_t = a_t S_{t-1} + k_t v_t',    o_t = S_t' q_t
    backward in time:   R_t = a_{t+1} R_{t+1} + k_t v_t',    o_t = R_t' q_t

A program holds a [K, columns] block of one head's memory in registers and goes from chunk to chunk, so that inputs are
read once per block of columns, and the memory never leaves the chip. The gradients are the same scan with other
tensors in the places of q, k and v:

    dq = scan(dO, V, K),    dk = reverse scan(V, dO, Q),    dv = reverse scan(K, Q, dO)

The gradient of log a_t is what passes step t, which is q_i.dq_i - k_i.dk_i summed over i >= t. So that no rounding adds
up over a long sequence, the sum starts anew in every group of chunks, from <S, R> at the group's end: the forward scan
that finds dq leaves S there, and the reverse scan that finds dk reads it. Padding neither reads nor writes.

q, k: [batch, time, heads, K]; v, o: [batch, time, heads, V]; log a: [batch, time, heads]; S, R: [batch, heads, K, V].
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from contexture.ops.triton.factors import factors
from contexture.ops.triton.launch import chunk, dot, roomy, rows, tile
from contexture.ops.triton.tiles import part_and_unit

GROUP = 8
"""Chunks to a group."""


@triton.jit(do_not_specialize=["time"])
def _scan(
    q,
    k,
    v,
    o,
    log_decay,
    ids,
    first,
    last,
    moved,
    rowed,
    held,
    crossed,
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
    g_b,
    g_t,
    g_h,
    m_b,
    m_t,
    m_h,
    s_k,
    s_v,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    SIZE: tl.constexpr,
    GROUPED: tl.constexpr,
    DOT: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_DECAY: tl.constexpr,
    HAS_IDS: tl.constexpr,
    HAS_FIRST: tl.constexpr,
    HAS_LAST: tl.constexpr,
    HAS_MOVED: tl.constexpr,
):
    blocks = (V + BV - 1) // BV
    block, pair = part_and_unit(blocks)
    b, h = pair // heads, pair % heads
    row, inner, column = tl.arange(0, SIZE), tl.arange(0, BK), block * BV + tl.arange(0, BV)
    has_inner, has_column = inner < K, column < V
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    o += (b * time * heads + h) * V
    chunks = tl.cdiv(time, SIZE)
    corner = inner[:, None] * s_k + column[None, :] * s_v
    in_corner = has_inner[:, None] & has_column[None, :]
    if HAS_FIRST:
        state = tl.load(first + pair * K * V + corner, mask=in_corner, other=0.0)
    else:
        state = tl.zeros((BK, BV), dtype=tl.float32)
    if HAS_DECAY:
        log_decay += b * g_b + h * g_h
    if HAS_IDS:
        ids += b * time
    for step in range(chunks):
        n = step
        if REVERSE:
            n = chunks - 1 - step
        start = (n * SIZE).to(tl.int64)
        valid = start + row < time
        within, reads, writes, keeps, present, continues = factors(
            log_decay, ids, start, time, g_t, SIZE, REVERSE, HAS_DECAY, HAS_IDS
        )
        in_inner, in_column = present[:, None] & has_inner[None, :], valid[:, None] & has_column[None, :]
        queries = tl.load(q + start * q_t + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0)
        keys = tl.load(k + start * k_t + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0)
        values = tl.load(v + start * v_t + row[:, None] * v_t + column[None, :], mask=in_column, other=0.0)
        queries, keys, values = queries.to(DOT), keys.to(DOT), values.to(DOT)
        if HAS_MOVED and REVERSE and (n % GROUPED == GROUPED - 1 or n == chunks - 1):
            group = pair * tl.cdiv(chunks, GROUPED) + n // GROUPED
            other = tl.load(held + group * K * V + inner[:, None] * V + column[None, :], mask=in_corner, other=0.0)
            tl.store(crossed + group * blocks + block, continues * tl.sum(tl.sum(other * state, axis=1), axis=0))
        scores = (tl.dot(queries, tl.trans(keys), input_precision="tf32x3") * within).to(DOT)
        out = tl.dot(queries, state.to(DOT), input_precision="tf32x3") * reads[:, None]
        out += tl.dot(scores, values, input_precision="tf32x3")
        tl.store(o + (start + row)[:, None] * heads * V + column[None, :], out.to(o.dtype.element_ty), mask=in_column)
        if HAS_MOVED:
            at = moved + b * m_b + h * m_h + start * m_t
            factor = tl.load(at + row[:, None] * m_t + column[None, :], mask=in_column, other=0.0)
            tl.store(
                rowed + (block * (tl.num_programs(0) // blocks) + pair) * time + start + row,
                tl.sum(factor.to(tl.float32) * out, axis=1),
                mask=valid,
            )
        written = (values.to(tl.float32) * writes[:, None]).to(DOT)
        state = state * keeps + tl.dot(tl.trans(keys), written, input_precision="tf32x3")
        if HAS_MOVED and not REVERSE and (n % GROUPED == GROUPED - 1 or n == chunks - 1):
            group = pair * tl.cdiv(chunks, GROUPED) + n // GROUPED
            tl.store(held + group * K * V + inner[:, None] * V + column[None, :], state, mask=in_corner)
    if HAS_LAST:
        tl.store(last + pair * K * V + corner, state, mask=in_corner)


class Tiles(NamedTuple):
    """How a launch is cut: columns of the memory to a program, warps, and stages of the pipeline of loads."""

    columns: int
    num_warps: int
    num_stages: int


def tiles(inner: int, columns: int, itemsize: int, *, roomy: bool) -> Tiles:
    """The one configuration for a size of tile and of numbers: a program's memory fits its registers, and two chunks of
    its inputs the shared memory of an SM (one chunk, where that is not roomy)."""
    widest = min(columns, 64 if inner <= 128 else 32)
    if itemsize == 4:
        return Tiles(min(widest, 32), 4, 1 if inner > 64 else 2)
    return Tiles(widest, 4, 2 if roomy or inner <= 128 else 1)


class Gate(NamedTuple):
    """What the gradient of the decays needs of a scan: the tensor that its output is multiplied with, row sums of that
    [blocks, batch, heads, time], memories at the ends of groups, and their products [batch, heads, groups, blocks]."""

    factor: Tensor
    rows: Tensor
    held: Tensor
    crossed: Tensor | None


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    ids: Tensor | None = None,
    first: Tensor | None = None,
    last: Tensor | None = None,
    transposed: bool = False,
    reverse: bool = False,
    gate: Gate | None = None,
) -> Tensor:
    """Run the kernel; `last` is written in place. `transposed` says that `first` and `last` are [.., V, K]."""
    (batch, time, heads, inner), columns = q.shape, v.shape[-1]
    q, k, v = rows(q), rows(k), rows(v)
    out = torch.empty(batch, time, heads, columns, dtype=v.dtype, device=v.device)
    size, wide, cut = (
        chunk(time),
        tile(inner),
        tiles(tile(inner), tile(columns), v.element_size(), roomy=roomy(v.device)),
    )
    moved = None if gate is None else rows(gate.factor)
    _scan[(triton.cdiv(columns, cut.columns) * batch * heads,)](
        q,
        k,
        v,
        out,
        log_decay,
        ids,
        first,
        last,
        moved,
        *((None,) * 3 if gate is None else (gate.rows, gate.held, gate.crossed)),
        time,
        heads,
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        *((0, 0, 0) if log_decay is None else log_decay.stride()),
        *((0, 0, 0) if moved is None else moved.stride()[:3]),
        *((1, inner) if transposed else (columns, 1)),
        K=inner,
        V=columns,
        BK=wide,
        BV=cut.columns,
        SIZE=size,
        GROUPED=GROUP,
        DOT=dot(v.dtype),
        REVERSE=reverse,
        HAS_DECAY=log_decay is not None,
        HAS_IDS=ids is not None,
        HAS_FIRST=first is not None,
        HAS_LAST=last is not None,
        HAS_MOVED=gate is not None,
        num_warps=cut.num_warps,
        num_stages=cut.num_stages,
    )
    return out


def memory(like: Tensor, inner: int, columns: int) -> Tensor:
    """Room for a memory of [inner, columns] to each sequence and head of `like`."""
    return torch.empty(like.shape[0], like.shape[2], inner, columns, dtype=torch.float32, device=like.device)


class Scan(torch.autograd.Function):
    """The scan with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        log_decay: Tensor | None,
        first: Tensor | None,
        ids: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs and the last memory."""
        last = memory(q, q.shape[-1], v.shape[-1])
        out = scan(q, k, v, log_decay=log_decay, ids=ids, first=first, last=last)
        ctx.save_for_backward(q, k, v, log_decay, first, ids)
        return out, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        """Three scans, and sums for the decays."""
        q, k, v, log_decay, first, ids = ctx.saved_tensors
        rest = {"log_decay": log_decay, "ids": ids}
        d_last = d_last.contiguous()
        d_first = memory(q, q.shape[-1], v.shape[-1]) if ctx.needs_input_grad[4] else None
        forth, back = (None, None) if log_decay is None else _gates(q, k, v)
        d_q = scan(d_out, v, k, first=first, transposed=True, gate=forth, **rest)
        d_k = scan(v, d_out, q, first=d_last, transposed=True, reverse=True, gate=back, **rest)
        d_v = scan(k, q, d_out, first=d_last, last=d_first, reverse=True, **rest)
        d_decay = None if forth is None or back is None else _decay_gradient(forth, back)
        return d_q, d_k, d_v, d_decay, d_first, None


def _gates(q: Tensor, k: Tensor, v: Tensor) -> tuple[Gate, Gate]:
    """Room for what the two scans leave for the gradient of the decays."""
    batch, time, heads, inner = q.shape
    columns = v.shape[-1]
    blocks = triton.cdiv(inner, tiles(tile(columns), tile(inner), q.element_size(), roomy=roomy(q.device)).columns)
    groups = triton.cdiv(triton.cdiv(time, chunk(time)), GROUP)
    rowed = torch.empty(2, blocks, batch, heads, time, dtype=torch.float32, device=q.device)
    held = torch.empty(batch, heads, groups, columns, inner, dtype=torch.float32, device=q.device)
    crossed = torch.empty(batch, heads, groups, blocks, dtype=torch.float32, device=q.device)
    return Gate(q, rowed[0], held, None), Gate(k, rowed[1], held, crossed)


def _decay_gradient(forth: Gate, back: Gate) -> Tensor:
    """Sums from each step to its group's end, and what crosses that: [batch, time, heads]."""
    assert back.crossed is not None
    time = forth.rows.shape[-1]
    crossed = back.crossed.sum(-1)
    size = chunk(time) * GROUP
    change = torch.nn.functional.pad((forth.rows - back.rows).sum(0), (0, crossed.shape[-1] * size - time))
    later = torch.unflatten(change, -1, (-1, size)).flip(-1).cumsum(-1).flip(-1)
    return (later + crossed.unsqueeze(-1)).flatten(2)[..., :time].mT
