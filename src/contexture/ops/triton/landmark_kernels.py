"""Kernels of landmark attention; `contexture.ops.triton.landmark_attention` launches them.

A tile holds some blocks of keys side by side, each filled up to a power of two, so that the softmax of every block is a
reduction of [queries, blocks, slots] over its last axis and no block is ever cut. A landmark is a row like a key,
repeated over its block's slots, which lets one product score it. With e_b the score of a landmark, p_b its share,
a_bs the softmax inside, g_s = do.v_s, u_b = sum_s a_bs g_s and delta = do.o,

    d e_b = p_b (u_b - delta),    d(score of s in b) = p_b a_bs (g_s - u_b),    in the own block p_s (g_s - delta).

starts: int32 [batch, blocks + 1], the first token of each block; own, lowest: int32 [batch, time], a query's block and
the first block of its sequence; until: int32 [batch, blocks], the end of each block's sequence among the queries;
kept: int8 [batch, heads, time, blocks], one where a query enters a block, if it enters only some.
"""

import triton
import triton.language as tl

from contexture.ops.triton.tiles import load_rows, part_and_unit


@triton.jit
def _slots(starts_ptr, row, group, blocks, NUM: tl.constexpr, BP: tl.constexpr):
    """The blocks of one tile, those of its slots, and each slot's place, token and whether there is one."""
    slot = tl.arange(0, NUM * BP)
    some, of_slot, place = group * NUM + tl.arange(0, NUM), group * NUM + slot // BP, slot % BP
    begin = tl.load(starts_ptr + row * (blocks + 1) + of_slot, mask=of_slot < blocks, other=0)
    end = tl.load(starts_ptr + row * (blocks + 1) + of_slot + 1, mask=of_slot < blocks, other=0)
    return some, of_slot, place, begin + place, begin + place < end


@triton.jit
def _inside(scores, there, NUM: tl.constexpr, BP: tl.constexpr):
    """The softmax inside every block of a tile, [queries, blocks, slots]; an empty block gives zeros."""
    masked = tl.reshape(tl.where(there[None, :], scores, float("-inf")), [scores.shape[0], NUM, BP])
    largest = tl.max(masked, 2)
    raised = tl.exp(masked - tl.where(largest == float("-inf"), 0.0, largest)[:, :, None])
    total = tl.sum(raised, 2)
    return raised / tl.where(total > 0, total, 1.0)[:, :, None]


@triton.jit
def _entries(
    q, landmarks, some, own, lowest, kept_ptr, scale, NUM: tl.constexpr, BP: tl.constexpr, FEW: tl.constexpr, t, there,
    blocks,
):  # fmt: skip
    """The scores of a tile's landmarks, [queries, blocks], minus infinity where a query does not enter."""
    every = scale * tl.dot(q, tl.trans(landmarks), input_precision="tf32x3")
    entries = tl.max(tl.reshape(every, [q.shape[0], NUM, BP]), 2)
    enters = (some[None, :] >= lowest[:, None]) & (some[None, :] < own[:, None])
    if FEW:
        at = t[:, None].to(tl.int64) * blocks + some[None, :]
        enters = enters & (tl.load(kept_ptr + at, mask=there[:, None] & (some < blocks)[None, :], other=0) != 0)
    return tl.where(enters, entries, float("-inf"))


@triton.jit
def outputs_kernel(
    q_ptr, k_ptr, v_ptr, landmarks_ptr, starts_ptr, own_ptr, lowest_ptr, kept_ptr, out_ptr, lse_ptr,
    q_strides, k_strides, v_strides, landmarks_strides, time, past, heads, blocks, scale,
    DIM: tl.constexpr, OUT: tl.constexpr, BQ: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, NUM: tl.constexpr,
    BP: tl.constexpr, FEW: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """A tile of queries: earlier blocks by their landmarks, then the tokens of the own block."""
    tile, unit = part_and_unit(tl.cdiv(time, BQ))
    row, head = unit // heads, unit % heads
    d, e = tl.arange(0, BD), tl.arange(0, BE)
    t = tile * BQ + tl.arange(0, BQ)
    there, in_d, in_e = t < time, d < DIM, e < OUT
    q = load_rows(q_ptr, q_strides, row, head, t, d, there[:, None] & in_d[None, :]).to(DOT)
    own = tl.load(own_ptr + row * time + t, mask=there, other=-1)
    lowest = tl.load(lowest_ptr + row * time + t, mask=there, other=2147483647)
    kept_ptr += unit * time * blocks
    largest, total = tl.full([BQ], float("-inf"), tl.float32), tl.zeros([BQ], tl.float32)
    summed = tl.zeros([BQ, BE], tl.float32)
    for group in range(tl.min(lowest, 0) // NUM, tl.cdiv(tl.max(own, 0), NUM)):
        some, of_slot, _, s, real = _slots(starts_ptr, row, group, blocks, NUM, BP)
        k = load_rows(k_ptr, k_strides, row, head, s, d, real[:, None] & in_d[None, :]).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, s, e, real[:, None] & in_e[None, :]).to(DOT)
        marks = load_rows(
            landmarks_ptr, landmarks_strides, row, head, of_slot, d, (of_slot < blocks)[:, None] & in_d[None, :]
        ).to(DOT)
        entries = _entries(q, marks, some, own, lowest, kept_ptr, scale, NUM, BP, FEW, t, there, blocks)
        inside = _inside(scale * tl.dot(q, tl.trans(k), input_precision="tf32x3"), real, NUM, BP)
        higher = tl.maximum(largest, tl.max(entries, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        shares, left = tl.exp(entries - level[:, None]), tl.exp(largest - level)
        weights = tl.reshape(inside * shares[:, :, None], [BQ, NUM * BP])
        total = total * left + tl.sum(shares, 1)
        summed = summed * left[:, None] + tl.dot(weights.to(DOT), v, input_precision="tf32x3")
        largest = higher
    begin = tl.load(starts_ptr + row * (blocks + 1) + own, mask=there, other=2147483647)
    first = tl.min(begin, 0)
    last = past + tl.minimum(tile * BQ + BQ, time)
    for n in range(tl.cdiv(last - first, BQ)):
        s = first + n * BQ + tl.arange(0, BQ)
        real = s < last
        k = load_rows(k_ptr, k_strides, row, head, s, d, real[:, None] & in_d[None, :]).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, s, e, real[:, None] & in_e[None, :]).to(DOT)
        seen = (s[None, :] >= begin[:, None]) & (s[None, :] <= past + t[:, None])
        scores = tl.where(seen, scale * tl.dot(q, tl.trans(k), input_precision="tf32x3"), float("-inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weights, left = tl.exp(scores - level[:, None]), tl.exp(largest - level)
        total = total * left + tl.sum(weights, 1)
        summed = summed * left[:, None] + tl.dot(weights.to(DOT), v, input_precision="tf32x3")
        largest = higher
    total = tl.where(total > 0, total, 1.0)
    at = (row * time + t) * heads + head
    out = (summed / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + at[:, None] * OUT + e[None, :], out, mask=there[:, None] & in_e[None, :])
    tl.store(lse_ptr + at, tl.where(largest == float("-inf"), 0.0, largest) + tl.log(total), mask=there)


@triton.jit
def queries_kernel(
    q_ptr, k_ptr, v_ptr, landmarks_ptr, starts_ptr, own_ptr, lowest_ptr, kept_ptr, out_ptr, lse_ptr, d_out_ptr,
    d_q_ptr, delta_ptr, q_strides, k_strides, v_strides, landmarks_strides, time, past, heads, blocks, scale,
    DIM: tl.constexpr, OUT: tl.constexpr, BQ: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, NUM: tl.constexpr,
    BP: tl.constexpr, FEW: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of queries."""
    tile, unit = part_and_unit(tl.cdiv(time, BQ))
    row, head = unit // heads, unit % heads
    d, e = tl.arange(0, BD), tl.arange(0, BE)
    t = tile * BQ + tl.arange(0, BQ)
    there, in_d, in_e = t < time, d < DIM, e < OUT
    q = load_rows(q_ptr, q_strides, row, head, t, d, there[:, None] & in_d[None, :]).to(DOT)
    own = tl.load(own_ptr + row * time + t, mask=there, other=-1)
    lowest = tl.load(lowest_ptr + row * time + t, mask=there, other=2147483647)
    kept_ptr += unit * time * blocks
    at = (row * time + t) * heads + head
    of_e = there[:, None] & in_e[None, :]
    d_out = tl.load(d_out_ptr + at[:, None] * OUT + e[None, :], mask=of_e, other=0.0)
    out = tl.load(out_ptr + at[:, None] * OUT + e[None, :], mask=of_e, other=0.0).to(tl.float32)
    delta = tl.sum(out * d_out.to(tl.float32), 1)
    tl.store(delta_ptr + at, delta, mask=there)
    d_out = d_out.to(DOT)
    lse = tl.load(lse_ptr + at, mask=there, other=0.0)
    d_q = tl.zeros([BQ, BD], tl.float32)
    for group in range(tl.min(lowest, 0) // NUM, tl.cdiv(tl.max(own, 0), NUM)):
        some, of_slot, place, s, real = _slots(starts_ptr, row, group, blocks, NUM, BP)
        k = load_rows(k_ptr, k_strides, row, head, s, d, real[:, None] & in_d[None, :]).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, s, e, real[:, None] & in_e[None, :]).to(DOT)
        marks = load_rows(
            landmarks_ptr, landmarks_strides, row, head, of_slot, d, (of_slot < blocks)[:, None] & in_d[None, :]
        ).to(DOT)
        entries = _entries(q, marks, some, own, lowest, kept_ptr, scale, NUM, BP, FEW, t, there, blocks)
        inside = _inside(scale * tl.dot(q, tl.trans(k), input_precision="tf32x3"), real, NUM, BP)
        shares = tl.exp(entries - lse[:, None])
        found = tl.reshape(tl.dot(d_out, tl.trans(v), input_precision="tf32x3"), [BQ, NUM, BP])
        mean = tl.sum(inside * found, 2)
        d_entries = scale * shares * (mean - delta[:, None])
        d_scores = scale * (inside * shares[:, :, None]) * (found - mean[:, :, None])
        d_q += tl.dot(tl.reshape(d_scores, [BQ, NUM * BP]).to(DOT), k, input_precision="tf32x3")
        spread = tl.reshape(tl.broadcast_to(d_entries[:, :, None], [BQ, NUM, BP]), [BQ, NUM * BP])
        spread = tl.where((place == 0)[None, :], spread, 0.0)
        d_q += tl.dot(spread.to(DOT), marks, input_precision="tf32x3")
    begin = tl.load(starts_ptr + row * (blocks + 1) + own, mask=there, other=2147483647)
    first = tl.min(begin, 0)
    last = past + tl.minimum(tile * BQ + BQ, time)
    for n in range(tl.cdiv(last - first, BQ)):
        s = first + n * BQ + tl.arange(0, BQ)
        real = s < last
        k = load_rows(k_ptr, k_strides, row, head, s, d, real[:, None] & in_d[None, :]).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, s, e, real[:, None] & in_e[None, :]).to(DOT)
        seen = (s[None, :] >= begin[:, None]) & (s[None, :] <= past + t[:, None])
        scores = scale * tl.dot(q, tl.trans(k), input_precision="tf32x3") - lse[:, None]
        weights = tl.exp(tl.where(seen, scores, float("-inf")))
        found = tl.dot(d_out, tl.trans(v), input_precision="tf32x3")
        d_scores = scale * weights * (found - delta[:, None])
        d_q += tl.dot(d_scores.to(DOT), k, input_precision="tf32x3")
    d_q = d_q.to(d_q_ptr.dtype.element_ty)
    tl.store(d_q_ptr + at[:, None] * DIM + d[None, :], d_q, mask=there[:, None] & in_d[None, :])


@triton.jit
def keys_kernel(
    q_ptr, k_ptr, v_ptr, landmarks_ptr, starts_ptr, own_ptr, lowest_ptr, kept_ptr, until_ptr, lse_ptr, delta_ptr,
    d_out_ptr, d_k_ptr, d_v_ptr, d_landmarks_ptr,
    q_strides, k_strides, v_strides, landmarks_strides, time, past, heads, blocks, scale,
    DIM: tl.constexpr, OUT: tl.constexpr, BQ: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, NUM: tl.constexpr,
    BP: tl.constexpr, FEW: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of blocks: keys, values and landmarks, from all later queries of their sequences."""
    group, unit = part_and_unit(tl.cdiv(blocks, NUM))
    row, head = unit // heads, unit % heads
    d, e = tl.arange(0, BD), tl.arange(0, BE)
    in_d, in_e = d < DIM, e < OUT
    some, of_slot, place, s, real = _slots(starts_ptr, row, group, blocks, NUM, BP)
    known = of_slot < blocks
    k = load_rows(k_ptr, k_strides, row, head, s, d, real[:, None] & in_d[None, :]).to(DOT)
    v = load_rows(v_ptr, v_strides, row, head, s, e, real[:, None] & in_e[None, :]).to(DOT)
    marks = load_rows(landmarks_ptr, landmarks_strides, row, head, of_slot, d, known[:, None] & in_d[None, :]).to(DOT)
    kept_ptr += unit * time * blocks
    d_k, d_v = tl.zeros([NUM * BP, BD], tl.float32), tl.zeros([NUM * BP, BE], tl.float32)
    d_marks = tl.zeros([NUM * BP, BD], tl.float32)
    first = tl.maximum(tl.min(tl.where(real, s, 2147483647), 0) - past, 0)
    after = tl.max(tl.load(until_ptr + row * blocks + some, mask=some < blocks, other=0), 0)
    for n in range(tl.cdiv(tl.maximum(after - first, 0), BQ)):
        t = first + n * BQ + tl.arange(0, BQ)
        there = t < time
        at = (row * time + t) * heads + head
        q = load_rows(q_ptr, q_strides, row, head, t, d, there[:, None] & in_d[None, :]).to(DOT)
        own = tl.load(own_ptr + row * time + t, mask=there, other=-1)
        lowest = tl.load(lowest_ptr + row * time + t, mask=there, other=2147483647)
        of_out = there[:, None] & in_e[None, :]
        d_out = tl.load(d_out_ptr + at[:, None] * OUT + e[None, :], mask=of_out, other=0.0).to(DOT)
        lse = tl.load(lse_ptr + at, mask=there, other=0.0)
        delta = tl.load(delta_ptr + at, mask=there, other=0.0)
        entries = _entries(q, marks, some, own, lowest, kept_ptr, scale, NUM, BP, FEW, t, there, blocks)
        scores = scale * tl.dot(q, tl.trans(k), input_precision="tf32x3")
        inside = _inside(scores, real, NUM, BP)
        shares = tl.exp(entries - lse[:, None])
        found = tl.dot(d_out, tl.trans(v), input_precision="tf32x3")
        split = tl.reshape(found, [BQ, NUM, BP])
        mean = tl.sum(inside * split, 2)
        d_entries = scale * shares * (mean - delta[:, None])
        weights = inside * shares[:, :, None]
        d_scores = tl.reshape(weights * (split - mean[:, :, None]), [BQ, NUM * BP])
        weights = tl.reshape(weights, [BQ, NUM * BP])
        seen = (own[:, None] == of_slot[None, :]) & (s[None, :] <= past + t[:, None]) & real[None, :]
        near = tl.exp(tl.where(seen, scores - lse[:, None], float("-inf")))
        weights = (weights + near).to(DOT)
        d_scores = (scale * (d_scores + near * (found - delta[:, None]))).to(DOT)
        spread = tl.reshape(tl.broadcast_to(d_entries[:, :, None], [BQ, NUM, BP]), [BQ, NUM * BP]).to(DOT)
        d_v += tl.dot(tl.trans(weights), d_out, input_precision="tf32x3")
        d_k += tl.dot(tl.trans(d_scores), q, input_precision="tf32x3")
        d_marks += tl.dot(tl.trans(spread), q, input_precision="tf32x3")
    at = (row * (past + time) + s) * heads + head
    d_k, d_v = d_k.to(d_k_ptr.dtype.element_ty), d_v.to(d_v_ptr.dtype.element_ty)
    tl.store(d_k_ptr + at[:, None] * DIM + d[None, :], d_k, mask=real[:, None] & in_d[None, :])
    tl.store(d_v_ptr + at[:, None] * OUT + e[None, :], d_v, mask=real[:, None] & in_e[None, :])
    at = (row * blocks + of_slot) * heads + head
    d_marks = d_marks.to(d_landmarks_ptr.dtype.element_ty)
    one = ((place == 0) & known)[:, None] & in_d[None, :]
    tl.store(d_landmarks_ptr + at[:, None] * DIM + d[None, :], d_marks, mask=one)
