"""Kernels of native hybrid attention; `contexture.ops.triton.native_hybrid_attention` launches them.

Time is cut into chunks of 32, the most for which no exponent exceeds 64. In a chunk, with G the running sum of f,
share s = 1 - e^f, reads = e^G, and up, down as in `contexture.ops.native_hybrid_attention`, all [chunk, slots]:

    slots' logits   reads * (Q K0') + up * (tril(Q K') down)
    recalled        (p * reads) V0 + tril((p * up) down') V
    handed on       S <- e^G_last S + (s e^(G_last - G))' [K, V]

Backward has the same three forms, with logits' gradients and queries in place of p and K. With r_t what slots give to
the outputs' gradient at t (read) and c_t what they take (write), c without its share, the gradient of f at t is

    sum_{i >= t} (r_i - s_i c_i) + <S_end, dS_end> - e^f_t c_t

since scaling a slot at t scales all that is read from t on and nothing that is written from t on.
ids: int32, the stretch of each token; of the window's keys, -1 where there is none.
"""

import triton
import triton.language as tl

from contexture.ops.triton.tiles import load_rows, part_and_unit


@triton.jit
def _left(f):
    """1 - e^f, to all digits also where f is small."""
    small = -f * (1 + f / 2 * (1 + f / 3 * (1 + f / 4 * (1 + f / 5 * (1 + f / 6)))))
    return tl.where(f > -0.2, small, 1 - tl.exp(f))


@triton.jit
def _decays(f_ptr, strides, row, head, t, m, mask, LOWEST: tl.constexpr):
    """f clamped, its running sum and its sum over the chunk."""
    f = tl.maximum(load_rows(f_ptr, strides, row, head, t, m, mask).to(tl.float32), LOWEST)
    return f, tl.cumsum(f, 0), tl.sum(f, 0)


@triton.jit
def _masks(ids_ptr, row, t, time, start, there, PACKED: tl.constexpr):
    """What packed sequences allow: pairs within the chunk (i >= j), reads of the state, writes to it, its keeping."""
    i = t - start
    within = i[:, None] >= i[None, :]
    reads, writes, keeps = t >= 0, t >= 0, start >= 0
    if PACKED:
        own = tl.load(ids_ptr + row * time + t, mask=there, other=-1)
        before = tl.load(ids_ptr + row * time + start - 1, mask=start > 0, other=0)
        last = tl.load(ids_ptr + row * time + tl.minimum(start + t.shape[0], time) - 1)
        within = within & (own[:, None] == own[None, :])
        reads, writes, keeps = own == before, own == last, last == before
    return within, reads, writes, keeps


@triton.jit
def states_kernel(
    x_ptr, f_ptr, ids_ptr, initial_ptr, held_ptr, last_ptr, x_strides, f_strides, time, heads, columns, first_column,
    SLOTS: tl.constexpr, WIDTH: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BX: tl.constexpr,
    LOWEST: tl.constexpr, PACKED: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The slots before every chunk: some columns of one head's, from the first chunk to the last."""
    some, unit = part_and_unit((WIDTH + BX - 1) // BX)
    row, head, chunks = unit // heads, unit % heads, tl.cdiv(time, BC)
    m, e = tl.arange(0, BM), some * BX + tl.arange(0, BX)
    in_m, in_e = m < SLOTS, e < WIDTH
    place = m[:, None] * columns + first_column + e[None, :]
    shown = in_m[:, None] & in_e[None, :]
    state = tl.load(initial_ptr + unit * SLOTS * columns + place, mask=shown, other=0.0)
    for n in range(chunks):
        tl.store(held_ptr + (unit * chunks + n) * SLOTS * columns + place, state.to(held_ptr.dtype.element_ty), shown)
        t = n * BC + tl.arange(0, BC)
        there = t < time
        f, summed, last = _decays(f_ptr, f_strides, row, head, t, m, there[:, None] & in_m[None, :], LOWEST)
        _, _, writes, keeps = _masks(ids_ptr, row, t, time, n * BC, there, PACKED)
        added = tl.where(writes[:, None], _left(f) * tl.exp(last[None, :] - summed), 0.0)
        x = load_rows(x_ptr, x_strides, row, head, t, e, there[:, None] & in_e[None, :])
        state = tl.where(keeps, tl.exp(last), 0.0)[:, None] * state
        state += tl.dot(tl.trans(added.to(DOT)), x.to(DOT), input_precision="tf32x3")
    tl.store(last_ptr + unit * SLOTS * columns + place, state, mask=shown)


@triton.jit
def backward_states_kernel(
    x_ptr, weights_ptr, f_ptr, ids_ptr, d_last_ptr, d_held_ptr, d_initial_ptr, x_strides, f_strides, time, heads,
    columns, first_column,
    SLOTS: tl.constexpr, WIDTH: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BX: tl.constexpr,
    LOWEST: tl.constexpr, PACKED: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """What is asked of the slots after every chunk: sums of queries times the weights with which they read."""
    some, unit = part_and_unit((WIDTH + BX - 1) // BX)
    row, head, chunks = unit // heads, unit % heads, tl.cdiv(time, BC)
    m, e = tl.arange(0, BM), some * BX + tl.arange(0, BX)
    in_m, in_e = m < SLOTS, e < WIDTH
    place = m[:, None] * columns + first_column + e[None, :]
    shown = in_m[:, None] & in_e[None, :]
    d_state = tl.load(d_last_ptr + unit * SLOTS * columns + place, mask=shown, other=0.0)
    for back in range(chunks):
        n = chunks - 1 - back
        at = (unit * chunks + n) * SLOTS * columns + place
        tl.store(d_held_ptr + at, d_state.to(d_held_ptr.dtype.element_ty), mask=shown)
        t = n * BC + tl.arange(0, BC)
        there = t < time
        known = there[:, None] & in_m[None, :]
        _, summed, last = _decays(f_ptr, f_strides, row, head, t, m, known, LOWEST)
        _, reads, _, keeps = _masks(ids_ptr, row, t, time, n * BC, there, PACKED)
        at = ((row * time + t[:, None]) * heads + head) * SLOTS + m[None, :]
        weights = tl.load(weights_ptr + at, mask=known, other=0.0).to(tl.float32)
        weights = tl.where(reads[:, None], weights * tl.exp(summed), 0.0)
        x = load_rows(x_ptr, x_strides, row, head, t, e, there[:, None] & in_e[None, :])
        d_state = tl.where(keeps, tl.exp(last), 0.0)[:, None] * d_state
        d_state += tl.dot(tl.trans(weights.to(DOT)), x.to(DOT), input_precision="tf32x3")
    tl.store(d_initial_ptr + unit * SLOTS * columns + place, d_state, mask=shown)


@triton.jit
def outputs_kernel(
    q_ptr, k_ptr, v_ptr, f_ptr, qw_ptr, keys_ptr, values_ptr, ids_ptr, key_ids_ptr, held_ptr, out_ptr, lse_ptr,
    q_strides, k_strides, v_strides, f_strides, qw_strides, keys_strides, values_strides, time, past, heads, window,
    scale,
    SLOTS: tl.constexpr, DIM: tl.constexpr, OUT: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    BE: tl.constexpr, LOWEST: tl.constexpr, PACKED: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One chunk's outputs: slots and window under one softmax, tile by tile."""
    chunks = tl.cdiv(time, BC)
    n, unit = part_and_unit(chunks)
    row, head = unit // heads, unit % heads
    m, d, e = tl.arange(0, BM), tl.arange(0, BD), tl.arange(0, BE)
    t = n * BC + tl.arange(0, BC)
    there, in_m, in_d, in_e = t < time, m < SLOTS, d < DIM, e < OUT
    of_d, of_e = there[:, None] & in_d[None, :], there[:, None] & in_e[None, :]
    largest, total = tl.full([BC], float("-inf"), tl.float32), tl.zeros([BC], tl.float32)
    summed_values = tl.zeros([BC, BE], tl.float32)
    if SLOTS > 0:
        q = load_rows(q_ptr, q_strides, row, head, t, d, of_d).to(DOT)
        k = load_rows(k_ptr, k_strides, row, head, t, d, of_d).to(DOT)
        f, summed, last = _decays(f_ptr, f_strides, row, head, t, m, there[:, None] & in_m[None, :], LOWEST)
        within, reads, _, _ = _masks(ids_ptr, row, t, time, n * BC, there, PACKED)
        at = held_ptr + (unit * chunks + n) * SLOTS * (DIM + OUT) + m[:, None] * (DIM + OUT)
        keys0 = tl.load(at + d[None, :], mask=in_m[:, None] & in_d[None, :], other=0.0).to(DOT)
        since = tl.where(reads[:, None], tl.exp(summed), 0.0)
        up, down = tl.exp(summed - last[None, :] / 2), _left(f) * tl.exp(last[None, :] / 2 - summed)
        scores = tl.where(within, tl.dot(q, tl.trans(k), input_precision="tf32x3"), 0.0)
        logits = since * tl.dot(q, tl.trans(keys0), input_precision="tf32x3")
        logits = scale * (logits + up * tl.dot(scores, down, input_precision=WIDE))
        logits = tl.where(in_m[None, :], logits, float("-inf"))
        largest = tl.max(logits, 1)
        total = tl.sum(tl.exp(logits - largest[:, None]), 1)
    if window > 0:
        qw = load_rows(qw_ptr, qw_strides, row, head, t, d, of_d).to(DOT)
        ids = tl.load(ids_ptr + row * time + t, mask=there, other=-2)
        first = tl.maximum(past + n * BC - window + 1, 0)
        for tile in range(tl.cdiv(past + tl.minimum(n * BC + BC, time) - first, BC)):
            s = first + tile * BC + tl.arange(0, BC)
            known = s < past + time
            keys = load_rows(keys_ptr, keys_strides, row, head, s, d, known[:, None] & in_d[None, :]).to(DOT)
            values = load_rows(values_ptr, values_strides, row, head, s, e, known[:, None] & in_e[None, :]).to(DOT)
            key_ids = tl.load(key_ids_ptr + row * (past + time) + s, mask=known, other=-1)
            ahead = past + t[:, None] - s[None, :]
            seen = (ahead >= 0) & (ahead < window) & (ids[:, None] == key_ids[None, :])
            some = tl.where(seen, scale * tl.dot(qw, tl.trans(keys), input_precision="tf32x3"), float("-inf"))
            higher = tl.maximum(largest, tl.max(some, 1))
            level = tl.where(higher == float("-inf"), 0.0, higher)
            weights, kept = tl.exp(some - level[:, None]), tl.exp(largest - level)
            total = total * kept + tl.sum(weights, 1)
            summed_values *= kept[:, None]
            summed_values += tl.dot(weights.to(DOT), values, input_precision="tf32x3")
            largest = higher
    total = tl.where(total > 0, total, 1.0)
    lse = tl.where(largest == float("-inf"), 0.0, largest) + tl.log(total)
    out = summed_values / total[:, None]
    if SLOTS > 0:
        weights = tl.exp(logits - lse[:, None])
        v = load_rows(v_ptr, v_strides, row, head, t, e, of_e).to(DOT)
        values0 = tl.load(at + DIM + e[None, :], mask=in_m[:, None] & in_e[None, :], other=0.0).to(DOT)
        products = tl.where(within, tl.dot(weights * up, tl.trans(down), input_precision=WIDE), 0.0)
        out += tl.dot((weights * since).to(DOT), values0, input_precision="tf32x3")
        out += tl.dot(products.to(DOT), v, input_precision="tf32x3")
    at = (row * time + t) * heads + head
    tl.store(out_ptr + at[:, None] * OUT + e[None, :], out.to(out_ptr.dtype.element_ty), mask=of_e)
    tl.store(lse_ptr + at, lse, mask=there)


@triton.jit
def queries_kernel(
    q_ptr, k_ptr, v_ptr, f_ptr, qw_ptr, keys_ptr, values_ptr, ids_ptr, key_ids_ptr, held_ptr, out_ptr, lse_ptr,
    d_out_ptr, d_q_ptr, d_qw_ptr, delta_ptr, weights_ptr, d_logits_ptr, read_ptr,
    q_strides, k_strides, v_strides, f_strides, qw_strides, keys_strides, values_strides, time, past, heads, window,
    scale,
    SLOTS: tl.constexpr, DIM: tl.constexpr, OUT: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
    BE: tl.constexpr, LOWEST: tl.constexpr, PACKED: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The gradients of one chunk's queries, and the weights of its slots and their gradients for the kernels after."""
    chunks = tl.cdiv(time, BC)
    n, unit = part_and_unit(chunks)
    row, head = unit // heads, unit % heads
    m, d, e = tl.arange(0, BM), tl.arange(0, BD), tl.arange(0, BE)
    t = n * BC + tl.arange(0, BC)
    there, in_m, in_d, in_e = t < time, m < SLOTS, d < DIM, e < OUT
    of_d, of_e = there[:, None] & in_d[None, :], there[:, None] & in_e[None, :]
    place = (row * time + t) * heads + head
    out = tl.load(out_ptr + place[:, None] * OUT + e[None, :], mask=of_e, other=0.0).to(tl.float32)
    d_out = tl.load(d_out_ptr + place[:, None] * OUT + e[None, :], mask=of_e, other=0.0)
    delta = tl.sum(out * d_out.to(tl.float32), 1)
    d_out = d_out.to(DOT)
    lse = tl.load(lse_ptr + place, mask=there, other=0.0)
    tl.store(delta_ptr + place, delta, mask=there)
    if SLOTS > 0:
        q = load_rows(q_ptr, q_strides, row, head, t, d, of_d).to(DOT)
        k = load_rows(k_ptr, k_strides, row, head, t, d, of_d).to(DOT)
        v = load_rows(v_ptr, v_strides, row, head, t, e, of_e).to(DOT)
        f, summed, last = _decays(f_ptr, f_strides, row, head, t, m, there[:, None] & in_m[None, :], LOWEST)
        within, reads, _, _ = _masks(ids_ptr, row, t, time, n * BC, there, PACKED)
        at = held_ptr + (unit * chunks + n) * SLOTS * (DIM + OUT) + m[:, None] * (DIM + OUT)
        keys0 = tl.load(at + d[None, :], mask=in_m[:, None] & in_d[None, :], other=0.0).to(DOT)
        values0 = tl.load(at + DIM + e[None, :], mask=in_m[:, None] & in_e[None, :], other=0.0).to(DOT)
        since = tl.where(reads[:, None], tl.exp(summed), 0.0)
        up, down = tl.exp(summed - last[None, :] / 2), _left(f) * tl.exp(last[None, :] / 2 - summed)
        scores = tl.where(within, tl.dot(q, tl.trans(k), input_precision="tf32x3"), 0.0)
        raw = since * tl.dot(q, tl.trans(keys0), input_precision="tf32x3")
        raw += up * tl.dot(scores, down, input_precision=WIDE)
        weights = tl.where(in_m[None, :] & there[:, None], tl.exp(scale * raw - lse[:, None]), 0.0)
        scores = tl.where(within, tl.dot(d_out, tl.trans(v), input_precision="tf32x3"), 0.0)
        d_weights = since * tl.dot(d_out, tl.trans(values0), input_precision="tf32x3")
        d_weights += up * tl.dot(scores, down, input_precision=WIDE)
        d_logits = scale * weights * (d_weights - delta[:, None])
        products = tl.where(within, tl.dot(d_logits * up, tl.trans(down), input_precision=WIDE), 0.0)
        d_q = tl.dot((d_logits * since).to(DOT), keys0, input_precision="tf32x3")
        d_q += tl.dot(products.to(DOT), k, input_precision="tf32x3")
        tl.store(d_q_ptr + place[:, None] * DIM + d[None, :], d_q.to(d_q_ptr.dtype.element_ty), mask=of_d)
        at_m, of_m = place[:, None] * SLOTS + m[None, :], there[:, None] & in_m[None, :]
        tl.store(weights_ptr + at_m, weights.to(weights_ptr.dtype.element_ty), mask=of_m)
        tl.store(d_logits_ptr + at_m, d_logits.to(d_logits_ptr.dtype.element_ty), mask=of_m)
        tl.store(read_ptr + at_m, d_logits * raw + weights * d_weights, mask=of_m)
    d_qw = tl.zeros([BC, BD], tl.float32)
    if window > 0:
        qw = load_rows(qw_ptr, qw_strides, row, head, t, d, of_d).to(DOT)
        ids = tl.load(ids_ptr + row * time + t, mask=there, other=-2)
        first = tl.maximum(past + n * BC - window + 1, 0)
        for tile in range(tl.cdiv(past + tl.minimum(n * BC + BC, time) - first, BC)):
            s = first + tile * BC + tl.arange(0, BC)
            known = s < past + time
            keys = load_rows(keys_ptr, keys_strides, row, head, s, d, known[:, None] & in_d[None, :]).to(DOT)
            values = load_rows(values_ptr, values_strides, row, head, s, e, known[:, None] & in_e[None, :]).to(DOT)
            key_ids = tl.load(key_ids_ptr + row * (past + time) + s, mask=known, other=-1)
            ahead = past + t[:, None] - s[None, :]
            seen = (ahead >= 0) & (ahead < window) & (ids[:, None] == key_ids[None, :])
            some = scale * tl.dot(qw, tl.trans(keys), input_precision="tf32x3") - lse[:, None]
            shares = tl.exp(tl.where(seen, some, float("-inf")))
            d_shares = tl.dot(d_out, tl.trans(values), input_precision="tf32x3")
            d_some = scale * shares * (d_shares - delta[:, None])
            d_qw += tl.dot(d_some.to(DOT), keys, input_precision="tf32x3")
    tl.store(d_qw_ptr + place[:, None] * DIM + d[None, :], d_qw.to(d_qw_ptr.dtype.element_ty), mask=of_d)


@triton.jit
def window_kernel(
    qw_ptr, keys_ptr, values_ptr, ids_ptr, key_ids_ptr, lse_ptr, delta_ptr, d_out_ptr, d_keys_ptr, d_values_ptr,
    qw_strides, keys_strides, values_strides, time, past, heads, window, scale,
    DIM: tl.constexpr, OUT: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of the window's keys and values, from the queries that see them."""
    tile, unit = part_and_unit(tl.cdiv(past + time, BC))
    row, head = unit // heads, unit % heads
    d, e = tl.arange(0, BD), tl.arange(0, BE)
    s = tile * BC + tl.arange(0, BC)
    known, in_d, in_e = s < past + time, d < DIM, e < OUT
    of_d, of_e = known[:, None] & in_d[None, :], known[:, None] & in_e[None, :]
    keys = load_rows(keys_ptr, keys_strides, row, head, s, d, of_d).to(DOT)
    values = load_rows(values_ptr, values_strides, row, head, s, e, of_e).to(DOT)
    key_ids = tl.load(key_ids_ptr + row * (past + time) + s, mask=known, other=-1)
    d_keys, d_values = tl.zeros([BC, BD], tl.float32), tl.zeros([BC, BE], tl.float32)
    first = tl.maximum(tile * BC - past, 0)
    after = tl.minimum(tile * BC + BC - 1 + window - past, time)
    for n in range(tl.cdiv(tl.maximum(after - first, 0), BC)):
        t = first + n * BC + tl.arange(0, BC)
        there = t < time
        place = (row * time + t) * heads + head
        qw = load_rows(qw_ptr, qw_strides, row, head, t, d, there[:, None] & in_d[None, :]).to(DOT)
        of_out = there[:, None] & in_e[None, :]
        d_out = tl.load(d_out_ptr + place[:, None] * OUT + e[None, :], mask=of_out, other=0.0).to(DOT)
        lse = tl.load(lse_ptr + place, mask=there, other=0.0)
        delta = tl.load(delta_ptr + place, mask=there, other=0.0)
        ids = tl.load(ids_ptr + row * time + t, mask=there, other=-2)
        ahead = past + t[:, None] - s[None, :]
        seen = (ahead >= 0) & (ahead < window) & (ids[:, None] == key_ids[None, :])
        some = scale * tl.dot(qw, tl.trans(keys), input_precision="tf32x3") - lse[:, None]
        shares = tl.exp(tl.where(seen, some, float("-inf")))
        d_shares = tl.dot(d_out, tl.trans(values), input_precision="tf32x3")
        d_some = scale * shares * (d_shares - delta[:, None])
        d_keys += tl.dot(tl.trans(d_some.to(DOT)), qw, input_precision="tf32x3")
        d_values += tl.dot(tl.trans(shares.to(DOT)), d_out, input_precision="tf32x3")
    place = (row * (past + time) + s) * heads + head
    tl.store(d_keys_ptr + place[:, None] * DIM + d[None, :], d_keys.to(d_keys_ptr.dtype.element_ty), mask=of_d)
    tl.store(d_values_ptr + place[:, None] * OUT + e[None, :], d_values.to(d_values_ptr.dtype.element_ty), mask=of_e)


@triton.jit
def writes_kernel(
    x_ptr, y_ptr, weights_ptr, read_ptr, f_ptr, ids_ptr, held_ptr, last_ptr, d_held_ptr, d_x_ptr, taken_ptr, d_f_ptr,
    x_strides, y_strides, f_strides, time, heads, columns, first_column,
    SLOTS: tl.constexpr, WIDTH: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BX: tl.constexpr,
    LOWEST: tl.constexpr, PACKED: tl.constexpr, DOT: tl.constexpr, WIDE: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """The gradients of what one chunk writes, x, where queries y read with these weights.

    Called for keys, which leaves c and <S, dS> of a chunk in `taken`, and then for values, which ends with the
    gradient of f.
    """
    chunks = tl.cdiv(time, BC)
    n, unit = part_and_unit(chunks)
    row, head = unit // heads, unit % heads
    m, e = tl.arange(0, BM), tl.arange(0, BX)
    t = n * BC + tl.arange(0, BC)
    there, in_m, in_e = t < time, m < SLOTS, e < WIDTH
    of_e, of_m = there[:, None] & in_e[None, :], there[:, None] & in_m[None, :]
    x = load_rows(x_ptr, x_strides, row, head, t, e, of_e).to(DOT)
    y = load_rows(y_ptr, y_strides, row, head, t, e, of_e).to(DOT)
    f, summed, last = _decays(f_ptr, f_strides, row, head, t, m, of_m, LOWEST)
    within, _, writes, _ = _masks(ids_ptr, row, t, time, n * BC, there, PACKED)
    share, half = _left(f), last[None, :] / 2
    place = (row * time + t) * heads + head
    at_m = place[:, None] * SLOTS + m[None, :]
    raised = tl.load(weights_ptr + at_m, mask=of_m, other=0.0).to(tl.float32) * tl.exp(summed - half)
    at = (unit * chunks + n) * SLOTS * columns + m[:, None] * columns + first_column + e[None, :]
    shown = in_m[:, None] & in_e[None, :]
    d_state = tl.load(d_held_ptr + at, mask=shown, other=0.0).to(tl.float32)
    if n == chunks - 1:
        end = unit * SLOTS * columns + m[:, None] * columns + first_column + e[None, :]
        state = tl.load(last_ptr + end, mask=shown, other=0.0)
    else:
        state = tl.load(held_ptr + at + SLOTS * columns, mask=shown, other=0.0).to(tl.float32)
    kept = tl.sum(state * d_state, 1)
    to_end = tl.where(writes[:, None], tl.exp(last[None, :] - summed), 0.0)
    products = tl.dot(raised, tl.trans(share * tl.exp(half - summed)), input_precision=WIDE)
    products = tl.where(within, products, 0.0)
    d_x = tl.dot((share * to_end).to(DOT), d_state.to(DOT), input_precision="tf32x3")
    d_x += tl.dot(tl.trans(products.to(DOT)), y, input_precision="tf32x3")
    tl.store(d_x_ptr + place[:, None] * WIDTH + e[None, :], d_x.to(d_x_ptr.dtype.element_ty), mask=of_e)
    scores = tl.where(within, tl.dot(y, tl.trans(x), input_precision="tf32x3"), 0.0)
    taken = to_end * tl.dot(x, tl.trans(d_state.to(DOT)), input_precision="tf32x3")
    taken += tl.exp(half - summed) * tl.dot(tl.trans(scores), raised, input_precision=WIDE)
    of_taken = ((unit * chunks + n) * (BC + 1) + tl.arange(0, BC))[:, None] * SLOTS + m[None, :]
    of_kept = ((unit * chunks + n) * (BC + 1) + BC) * SLOTS + m
    if LAST:
        taken += tl.load(taken_ptr + of_taken, mask=in_m[None, :] & (t[:, None] >= 0), other=0.0)
        kept += tl.load(taken_ptr + of_kept, mask=in_m, other=0.0)
        moved = tl.load(read_ptr + at_m, mask=of_m, other=0.0) - share * taken
        later = tl.dot(tl.trans(within.to(tl.float32)), moved, input_precision="tf32x3")
        d_f = later + tl.where(writes[:, None], kept[None, :], 0.0) - tl.exp(f) * taken
        found = load_rows(f_ptr, f_strides, row, head, t, m, of_m).to(tl.float32)
        d_f = tl.where(found < LOWEST, 0.0, d_f)
        tl.store(d_f_ptr + at_m, d_f.to(d_f_ptr.dtype.element_ty), mask=of_m)
    else:
        tl.store(taken_ptr + of_taken, taken, mask=in_m[None, :] & (t[:, None] >= 0))
        tl.store(taken_ptr + of_kept, kept, mask=in_m)
