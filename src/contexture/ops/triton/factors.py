"""What a chunk's positions may read, and by how much it has decayed: shared by the kernels of linear memories.

A chunk's factors, all from 0 to 1: `within`, from one position of the chunk to another, zero above the diagonal (below
it, backward in time); `reads`, from the memory that comes in to a position; `writes`, from a position to the memory
that goes out; `keeps`, from the memory that comes in to the one that goes out. A change of segment makes them zero.
"""

import triton
import triton.language as tl


@triton.jit
def factors(
    log_decay,
    ids,
    start,
    time,
    g_t,
    SIZE: tl.constexpr,
    REVERSE: tl.constexpr,
    HAS_DECAY: tl.constexpr,
    HAS_IDS: tl.constexpr,
):
    """within, reads, writes, keeps; which positions hold a token; and whether the memory that comes in continues what
    the chunk ends (forward in time: begins) with. The pointers are those of one sequence and head."""
    row = tl.arange(0, SIZE)
    valid = start + row < time
    if REVERSE:
        may_read = row[:, None] <= row[None, :]
    else:
        may_read = row[:, None] >= row[None, :]
    within = tl.where(may_read, 1.0, 0.0)
    reads, writes, keeps = tl.full((SIZE,), 1.0, tl.float32), tl.full((SIZE,), 1.0, tl.float32), 1.0
    if HAS_DECAY:
        logs = tl.load(log_decay + (start + row) * g_t, mask=valid, other=0.0)
        logs = tl.maximum(logs.to(tl.float64), -800.0)
        # Differences of sums in two parts of fp32 each: a strong decay costs the weak ones after it no digits.
        since, whole = tl.cumsum(logs, 0), tl.sum(logs, 0)
        rest = (whole - since).to(tl.float32)
        high = since.to(tl.float32)
        low = (since - high.to(tl.float64)).to(tl.float32)
        between = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
        if REVERSE:
            between = -between
        within = tl.exp(tl.where(may_read, tl.minimum(between, 0.0), float("-inf")))
        keeps = tl.exp(whole.to(tl.float32))
        if REVERSE:
            reads, writes = tl.exp(rest), tl.exp(high)
        else:
            reads, writes = tl.exp(high), tl.exp(rest)
    present, continues = valid, 1.0
    if HAS_IDS:
        stretch = tl.load(ids + start + row, mask=valid, other=-1)
        present = stretch >= 0
        opening, closing = tl.load(ids + start), tl.load(ids + tl.minimum(start + SIZE - 1, time - 1))
        before, after = tl.load(ids + tl.maximum(start - 1, 0)), tl.load(ids + tl.minimum(start + SIZE, time - 1))
        within = tl.where(stretch[:, None] == stretch[None, :], within, 0.0)
        if REVERSE:
            reads = tl.where(stretch == after, reads, 0.0)
            writes = tl.where(stretch == opening, writes, 0.0)
            keeps = tl.where(opening == after, keeps, 0.0)
            continues = tl.where(closing == after, 1.0, 0.0)
        else:
            reads = tl.where(stretch == before, reads, 0.0)
            writes = tl.where(stretch == closing, writes, 0.0)
            keeps = tl.where(closing == before, keeps, 0.0)
            continues = tl.where(opening == before, 1.0, 0.0)
    return within, reads, writes, keeps, present, continues
