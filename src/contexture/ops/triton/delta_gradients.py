"""The two kernels of the delta rules that only a gradient needs; `contexture.ops.triton.delta_chunks` launches them,
and has their mathematics.

The last one holds three sums of [steps, channels] for a chunk. It takes a tile of key channels at a time, so that they
stay in registers, after loops of their own for what the chunk's positions are to one another: in one loop with products
of [32, 32] Triton would give all warps the same 32 rows of every product.
"""

import triton
import triton.language as tl

from contexture.ops.triton.factors import factors
from contexture.ops.triton.tiles import part_and_unit


@triton.jit(do_not_specialize=["time"])
def backward_kernel(
    q,
    k,
    d_out,
    rate,
    log_decay,
    ids,
    solver,
    d_last,
    d_first,
    moves,
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
):
    """R of every step (`moves`), the gradient of the memory after every chunk, and that of the first."""
    block, pair = part_and_unit((V + BV - 1) // BV)
    b, h = pair // heads, pair % heads
    row, inner, column = tl.arange(0, SIZE), tl.arange(0, BK), block * BV + tl.arange(0, BV)
    has_inner, has_column = inner < K, column < V
    corner, in_corner = inner[:, None] * V + column[None, :], has_inner[:, None] & has_column[None, :]
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h
    d_out += b * o_b + h * o_h
    rate += b * r_b + h * r_h
    if HAS_DECAY:
        log_decay += b * g_b + h * g_h
    if HAS_IDS:
        ids += b * time
    chunks = tl.cdiv(time, SIZE)
    change = tl.load(d_last + pair * K * V + corner, mask=in_corner, other=0.0)
    for step in range(chunks):
        n = chunks - 1 - step
        start = n * SIZE
        start = start.to(tl.int64)
        within, reads, writes, keeps, present, _continues = factors(
            log_decay, ids, start, time, g_t, SIZE, False, HAS_DECAY, HAS_IDS
        )
        valid = start + row < time
        in_inner, in_column = present[:, None] & has_inner[None, :], valid[:, None] & has_column[None, :]
        queries = tl.load(q + start * q_t + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
        keys = tl.load(k + start * k_t + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
        slopes = tl.load(d_out + start * o_t + row[:, None] * o_t + column[None, :], mask=in_column, other=0.0)
        rates = tl.load(rate + (start + row) * r_t, mask=present, other=0.0).to(tl.float32)
        turned = tl.load(solver + (pair * chunks + n) * SIZE * SIZE + row[None, :] * SIZE + row[:, None]).to(DOT)
        tl.store(afters + (pair * chunks + n) * K * V + corner, change.to(afters.dtype.element_ty), mask=in_corner)
        scores = (tl.dot(queries, tl.trans(keys), input_precision="tf32x3") * within).to(DOT)
        moved = tl.dot(keys, change.to(DOT), input_precision="tf32x3") * writes[:, None]
        moved += tl.dot(tl.trans(scores), slopes.to(DOT), input_precision="tf32x3")
        moved = tl.dot(turned, moved.to(DOT), input_precision="tf32x3")
        at = ((b * time + start) * heads + h) * V + row[:, None] * heads * V + column[None, :]
        tl.store(moves + at, moved.to(moves.dtype.element_ty), mask=in_column)
        read = (slopes.to(tl.float32) * reads[:, None]).to(DOT)
        erased = (moved * (rates * reads)[:, None]).to(DOT)
        change = change * keeps + tl.dot(tl.trans(queries), read, input_precision="tf32x3")
        change -= tl.dot(tl.trans(keys), erased, input_precision="tf32x3")
    tl.store(d_first + pair * K * V + corner, change, mask=in_corner)


@triton.jit(do_not_specialize=["time"])
def gradients_kernel(
    q,
    k,
    v,
    d_out,
    rate,
    log_decay,
    ids,
    news,
    moves,
    held,
    afters,
    d_q,
    d_k,
    d_v,
    d_rate,
    d_decay,
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
    r_b,
    r_t,
    r_h,
    g_b,
    g_t,
    g_h,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    STEP: tl.constexpr,
    SIZE: tl.constexpr,
    DOT: tl.constexpr,
    HAS_DECAY: tl.constexpr,
    HAS_IDS: tl.constexpr,
):
    """The gradients of q, k, v, the rates and the log-decays in one chunk, BK key channels at a time."""
    chunks = tl.cdiv(time, SIZE)
    n, pair = part_and_unit(chunks)
    b, h = pair // heads, pair % heads
    start = n.to(tl.int64) * SIZE
    at_chunk, at_memory = (b * time + start) * heads + h, (pair * chunks + n) * K * V
    row = tl.arange(0, SIZE)
    to_row = row[:, None] * heads
    q += b * q_b + h * q_h + start * q_t
    k += b * k_b + h * k_h + start * k_t
    v += b * v_b + h * v_h + start * v_t
    d_out += b * o_b + h * o_h + start * o_t
    rate += b * r_b + h * r_h + start * r_t
    if HAS_DECAY:
        log_decay += b * g_b + h * g_h
    if HAS_IDS:
        ids += b * time
    within, reads, writes, keeps, present, _continues = factors(
        log_decay, ids, start, time, g_t, SIZE, False, HAS_DECAY, HAS_IDS
    )
    valid = start + row < time
    rates = tl.load(rate + row * r_t, mask=present, other=0.0).to(tl.float32)
    news += at_chunk * V
    moves += at_chunk * V
    d_v += at_chunk * V
    held += at_memory
    afters += at_memory
    d_scores, crossed = tl.zeros((SIZE, SIZE), dtype=tl.float32), tl.zeros((SIZE, SIZE), dtype=tl.float32)
    slope = tl.zeros((SIZE,), dtype=tl.float32)
    for first in range(0, V, STEP):
        column = first + tl.arange(0, STEP)
        in_column = valid[:, None] & (column < V)[None, :]
        at = to_row * V + column[None, :]
        slopes = tl.load(d_out + row[:, None] * o_t + column[None, :], mask=in_column, other=0.0).to(DOT)
        values = tl.load(v + row[:, None] * v_t + column[None, :], mask=in_column, other=0.0).to(tl.float32)
        new = tl.load(news + at, mask=in_column, other=0.0).to(DOT)
        move = tl.load(moves + at, mask=in_column, other=0.0).to(DOT)
        d_scores += tl.dot(slopes, tl.trans(new), input_precision="tf32x3")
        crossed += tl.dot(move, tl.trans(new), input_precision="tf32x3")
        slope += tl.sum(move.to(tl.float32) * values, axis=1)
        d_values = move.to(tl.float32) * rates[:, None]
        tl.store(d_v + at, d_values.to(d_v.dtype.element_ty), mask=in_column)
    scores, overlaps = tl.zeros((SIZE, SIZE), dtype=tl.float32), tl.zeros((SIZE, SIZE), dtype=tl.float32)
    for first in range(0, K, STEP):
        inner = first + tl.arange(0, STEP)
        in_inner = present[:, None] & (inner < K)[None, :]
        keys = tl.load(k + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
        overlaps += tl.dot(keys, tl.trans(keys), input_precision="tf32x3")
        if HAS_DECAY:
            queries = tl.load(q + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
            scores += tl.dot(queries, tl.trans(keys), input_precision="tf32x3")
    d_scores = d_scores * within
    crossed = tl.where(row[:, None] > row[None, :], crossed * within, 0.0)
    slope -= tl.sum(crossed * overlaps, axis=1)
    d_overlaps = -crossed * rates[:, None]
    if HAS_DECAY:
        spread = d_scores * scores + d_overlaps * overlaps
        total = tl.sum(spread, axis=1) - tl.sum(spread, axis=0)
        whole = 0.0
    d_scores = d_scores.to(DOT)
    both = (d_overlaps + tl.trans(d_overlaps)).to(DOT)
    for tile in range(0, K, BK):
        inner = tile + tl.arange(0, BK)
        has_inner = inner < K
        in_inner = present[:, None] & has_inner[None, :]
        read, erased = tl.zeros((SIZE, BK), dtype=tl.float32), tl.zeros((SIZE, BK), dtype=tl.float32)
        written, kept = tl.zeros((SIZE, BK), dtype=tl.float32), tl.zeros((BK,), dtype=tl.float32)
        for first in range(0, V, STEP):
            column = first + tl.arange(0, STEP)
            has_column = column < V
            in_column, in_corner = valid[:, None] & has_column[None, :], has_inner[:, None] & has_column[None, :]
            at = to_row * V + column[None, :]
            corner = inner[:, None] * V + column[None, :]
            slopes = tl.load(d_out + row[:, None] * o_t + column[None, :], mask=in_column, other=0.0).to(DOT)
            new = tl.load(news + at, mask=in_column, other=0.0).to(DOT)
            move = tl.load(moves + at, mask=in_column, other=0.0).to(DOT)
            before = tl.load(held + corner, mask=in_corner, other=0.0).to(DOT)
            after = tl.load(afters + corner, mask=in_corner, other=0.0).to(DOT)
            read += tl.dot(slopes, tl.trans(before), input_precision="tf32x3")
            erased += tl.dot(move, tl.trans(before), input_precision="tf32x3")
            written += tl.dot(new, tl.trans(after), input_precision="tf32x3")
            if HAS_DECAY:
                kept += tl.sum(before.to(tl.float32) * after.to(tl.float32), axis=1)
        queries = tl.load(q + row[:, None] * q_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
        keys = tl.load(k + row[:, None] * k_t + inner[None, :], mask=in_inner, other=0.0).to(DOT)
        read, erased, written = read * reads[:, None], erased * reads[:, None], written * writes[:, None]
        recalled = tl.sum(erased * keys.to(tl.float32), axis=1)
        slope -= recalled
        if HAS_DECAY:
            left = tl.sum(written * keys.to(tl.float32), axis=1)
            total += tl.sum(read * queries.to(tl.float32), axis=1) - recalled * rates - left
            whole += tl.sum(left, axis=0) + keeps * tl.sum(kept, axis=0)
        d_queries = read + tl.dot(d_scores, keys, input_precision="tf32x3")
        d_keys = written - erased * rates[:, None]
        d_keys += tl.dot(tl.trans(d_scores), queries, input_precision="tf32x3")
        d_keys += tl.dot(both, keys, input_precision="tf32x3")
        to_tile = to_row * K + inner[None, :]
        in_tile = valid[:, None] & has_inner[None, :]
        tl.store(d_q + at_chunk * K + to_tile, d_queries.to(d_q.dtype.element_ty), mask=in_tile)
        tl.store(d_k + at_chunk * K + to_tile, d_keys.to(d_k.dtype.element_ty), mask=in_tile)
    tl.store(d_rate + at_chunk + row * heads, slope, mask=valid)
    if HAS_DECAY:
        later = tl.cumsum(total, 0, reverse=True) + whole
        tl.store(d_decay + at_chunk + row * heads, later, mask=valid)
