"""A matrix memory that descends on the loss of a window of tokens while it is read: the kernels of omega and Titans.

Time is cut into the chunks of the mechanism, at whose starts gradients are taken. In a chunk with queries Q, keys K and
values V of the window, the memory M and momentum S before it and weights c, p, d, h and r (`inner_steps.Weights`:
writes, pushes, of_memory, of_momentum and carried),

    E = V - K A   (or V),      O = d (Q M) + h (Q S) + (c * Q K') E,
    M <- d_last M + h_last S + (c_last K)' E,      S <- r_last S + (p_last K)' E,

where A is M, or in the first chunk the anchor that was handed in. The weights are sums of products of gates, a few
numbers a token; torch makes them, and differentiates them. A program takes some columns of one head's M and S through
all chunks in registers: columns do not meet. Forward leaves M and S before every chunk in the inputs' dtype; backward
goes through the chunks once, from the last, and sums over blocks of columns what queries, keys and weights are asked.

Bound by bytes where a gradient is asked: M and S before every chunk, 2 * dim * out * 2 B in bf16, against 8 * dim B of
rows a token (chunks of 16, 128 by 128: 64 KB of memories beside 16 KB of rows, so 0.36 ms of rows and 1.4 ms of
memories for batch 8, 16 heads, length 8,192 at 3.0 TB/s each way; chunks of 64 need a quarter of the latter). Without
a gradient the rows alone remain. Chunks shorter than 16 fill a tile of 16 with nothing.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.anchors import Windows
from contexture.ops.inner_steps import Weights
from contexture.ops.triton.launch import dot, rows, tile
from contexture.ops.triton.tiles import load_rows, part_and_unit, strides_of

COLUMNS = 32
"""How many columns of a memory a program takes through time."""


@triton.jit
def _chunk(
    writes_ptr, pushes_ptr, reads_ptr, starts_ptr, counts_ptr, row, unit, n, chunks, i, j, slots, width,
):  # fmt: skip
    """A chunk's weights, its first token, how many it has, and which of its slots hold one."""
    at, in_i, in_j = unit * chunks + n, i < slots, j < width
    table = at * slots * width + i[:, None] * width + j[None, :]
    writes = tl.load(writes_ptr + table, mask=in_i[:, None] & in_j[None, :], other=0.0)
    last = at * slots * width + (slots - 1) * width + j
    write_last = tl.load(writes_ptr + last, mask=in_j, other=0.0)
    push_last = tl.load(pushes_ptr + last, mask=in_j, other=0.0)
    of_memory = tl.load(reads_ptr + (at * slots + i) * 2, mask=in_i, other=0.0)
    of_momentum = tl.load(reads_ptr + (at * slots + i) * 2 + 1, mask=in_i, other=0.0)
    start, count = tl.load(starts_ptr + row * chunks + n), tl.load(counts_ptr + row * chunks + n)
    return writes, write_last, push_last, of_memory, of_momentum, start, count, i < count


@triton.jit
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, writes_ptr, pushes_ptr, reads_ptr, carried_ptr, starts_ptr, counts_ptr, begins_ptr,
    memory_ptr, momentum_ptr, anchor_ptr, out_ptr, held_ptr, last_ptr, q_strides, k_strides, v_strides, time, past,
    heads, chunks, slots, width,
    DIM: tl.constexpr, OUT: tl.constexpr, BC: tl.constexpr, BW: tl.constexpr,
    BD: tl.constexpr, BE: tl.constexpr, MOVING: tl.constexpr, SQUARED: tl.constexpr, KEEP: tl.constexpr,
    DOT: tl.constexpr,
):  # fmt: skip
    """Some columns of one head's memory through all chunks."""
    some, unit = part_and_unit((OUT + BE - 1) // BE)
    row, head = unit // heads, unit % heads
    d, e = tl.arange(0, BD), some * BE + tl.arange(0, BE)
    i, j = tl.arange(0, BC), tl.arange(0, BW)
    in_d, in_e = d < DIM, e < OUT
    place, shown = d[:, None] * OUT + e[None, :], in_d[:, None] & in_e[None, :]
    memory = tl.load(memory_ptr + unit * DIM * OUT + place, mask=shown, other=0.0)
    momentum = tl.load(momentum_ptr + unit * DIM * OUT + place, mask=shown, other=0.0)
    anchor = tl.load(anchor_ptr + unit * DIM * OUT + place, mask=shown, other=0.0)
    for n in range(chunks):
        writes, write_last, push_last, of_memory, of_momentum, start, count, real = _chunk(
            writes_ptr, pushes_ptr, reads_ptr, starts_ptr, counts_ptr, row, unit, n, chunks, i, j, slots, width
        )
        begin = tl.load(begins_ptr + row * chunks + n) != 0
        memory, momentum = tl.where(begin, 0.0, memory), tl.where(begin, 0.0, momentum)
        anchor = tl.where((n > 0) & (count > 0), memory, anchor)
        if KEEP:
            at = (unit * chunks + n) * 2 * DIM * OUT + place
            tl.store(held_ptr + at, memory.to(held_ptr.dtype.element_ty), mask=shown)
            tl.store(held_ptr + at + DIM * OUT, momentum.to(held_ptr.dtype.element_ty), mask=shown)
        known = (j < width) & (start + j < past + time)
        q = load_rows(q_ptr, q_strides, row, head, start + i, d, real[:, None] & in_d[None, :]).to(DOT)
        k = load_rows(k_ptr, k_strides, row, head, start + j, d, known[:, None] & in_d[None, :]).to(DOT)
        error = load_rows(v_ptr, v_strides, row, head, start + j, e, known[:, None] & in_e[None, :]).to(tl.float32)
        if SQUARED:
            error -= tl.dot(k, anchor.to(DOT), input_precision="tf32x3")
        error = error.to(DOT)
        out = of_memory[:, None] * tl.dot(q, memory.to(DOT), input_precision="tf32x3")
        if MOVING:
            out += of_momentum[:, None] * tl.dot(q, momentum.to(DOT), input_precision="tf32x3")
        scores = writes * tl.dot(q, tl.trans(k), input_precision="tf32x3")
        out += tl.dot(scores.to(DOT), error, input_precision="tf32x3")
        at = ((row * time + start + i[:, None]) * heads + head) * OUT + e[None, :]
        tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=real[:, None] & in_e[None, :])
        kept = tl.sum(tl.where(i == slots - 1, of_memory, 0.0), 0)
        memory *= kept
        if MOVING:
            memory += tl.sum(tl.where(i == slots - 1, of_momentum, 0.0), 0) * momentum
            momentum *= tl.load(carried_ptr + unit * chunks + n)
            pushed = tl.trans((k.to(tl.float32) * push_last[:, None]).to(DOT))
            momentum += tl.dot(pushed, error, input_precision="tf32x3")
        written = tl.trans((k.to(tl.float32) * write_last[:, None]).to(DOT))
        memory += tl.dot(written, error, input_precision="tf32x3")
    at = unit * 3 * DIM * OUT + place
    tl.store(last_ptr + at, memory, mask=shown)
    tl.store(last_ptr + at + DIM * OUT, momentum, mask=shown)
    tl.store(last_ptr + at + 2 * DIM * OUT, anchor, mask=shown)


@triton.jit
def _backward_kernel(
    q_ptr, k_ptr, v_ptr, writes_ptr, pushes_ptr, reads_ptr, carried_ptr, starts_ptr, counts_ptr, begins_ptr,
    anchor_ptr, held_ptr, d_out_ptr, d_last_ptr, d_q_ptr, d_k_ptr, d_v_ptr, d_writes_ptr, d_pushes_ptr, d_reads_ptr,
    d_carried_ptr, d_first_ptr, q_strides, k_strides, v_strides, time, past, heads, chunks, slots, width,
    DIM: tl.constexpr, OUT: tl.constexpr, BC: tl.constexpr, BW: tl.constexpr,
    BD: tl.constexpr, BE: tl.constexpr, MOVING: tl.constexpr, SQUARED: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """From the last chunk to the first with what is asked of M and S."""
    blocks = (OUT + BE - 1) // BE
    some, unit = part_and_unit(blocks)
    units = tl.num_programs(0) // blocks
    row, head = unit // heads, unit % heads
    d, e = tl.arange(0, BD), some * BE + tl.arange(0, BE)
    i, j = tl.arange(0, BC), tl.arange(0, BW)
    in_d, in_e, in_j = d < DIM, e < OUT, j < width
    place, shown = d[:, None] * OUT + e[None, :], in_d[:, None] & in_e[None, :]
    whole = unit * 3 * DIM * OUT + place
    d_memory = tl.load(d_last_ptr + whole, mask=shown, other=0.0)
    d_momentum = tl.load(d_last_ptr + whole + DIM * OUT, mask=shown, other=0.0)
    d_anchor = tl.load(d_last_ptr + whole + 2 * DIM * OUT, mask=shown, other=0.0)
    for back in range(chunks):
        n = chunks - 1 - back
        writes, write_last, push_last, of_memory, of_momentum, start, count, real = _chunk(
            writes_ptr, pushes_ptr, reads_ptr, starts_ptr, counts_ptr, row, unit, n, chunks, i, j, slots, width
        )
        held = (unit * chunks + n) * 2 * DIM * OUT + place
        memory = tl.load(held_ptr + held, mask=shown, other=0.0).to(tl.float32)
        momentum = tl.load(held_ptr + held + DIM * OUT, mask=shown, other=0.0).to(tl.float32)
        anchor = memory
        if n == 0:
            anchor = tl.load(anchor_ptr + unit * DIM * OUT + place, mask=shown, other=0.0)
        known = in_j & (start + j < past + time)
        q = load_rows(q_ptr, q_strides, row, head, start + i, d, real[:, None] & in_d[None, :]).to(DOT)
        k = load_rows(k_ptr, k_strides, row, head, start + j, d, known[:, None] & in_d[None, :]).to(DOT)
        error = load_rows(v_ptr, v_strides, row, head, start + j, e, known[:, None] & in_e[None, :]).to(tl.float32)
        if SQUARED:
            error -= tl.dot(k, anchor.to(DOT), input_precision="tf32x3")
        at = ((row * time + start + i[:, None]) * heads + head) * OUT + e[None, :]
        d_out = tl.load(d_out_ptr + at, mask=real[:, None] & in_e[None, :], other=0.0)

        products = tl.dot(q, tl.trans(k), input_precision="tf32x3")
        found = tl.dot(d_out.to(DOT), tl.trans(error.to(DOT)), input_precision="tf32x3")
        through = tl.dot(k, d_memory.to(DOT), input_precision="tf32x3")
        d_error = tl.dot(tl.trans((writes * products).to(DOT)), d_out.to(DOT), input_precision="tf32x3")
        d_error += write_last[:, None] * through
        d_write_last = tl.sum(error * through, 1)
        last = (i == slots - 1)[:, None]
        d_writes = products * found + tl.where(last, d_write_last[None, :], 0.0)
        part = (some * units + unit) * chunks + n
        table = part * slots * width + i[:, None] * width + j[None, :]
        tl.store(d_writes_ptr + table, d_writes, mask=(i < slots)[:, None] & in_j[None, :])

        scores = (writes * found).to(DOT)
        asked = tl.dot(d_out.to(DOT), tl.trans(memory.to(DOT)), input_precision="tf32x3")
        d_of_memory = tl.sum(q.to(tl.float32) * asked, 1)
        d_of_memory += tl.where(i == slots - 1, tl.sum(tl.sum(memory * d_memory, 1), 0), 0.0)
        d_q = of_memory[:, None] * asked + tl.dot(scores, k, input_precision="tf32x3")
        d_k = tl.dot(tl.trans(scores), q, input_precision="tf32x3")
        d_k += write_last[:, None] * tl.dot(error.to(DOT), tl.trans(d_memory.to(DOT)), input_precision="tf32x3")
        d_of_momentum = tl.zeros([BC], tl.float32)
        if MOVING:
            asked = tl.dot(d_out.to(DOT), tl.trans(momentum.to(DOT)), input_precision="tf32x3")
            d_of_momentum = tl.sum(q.to(tl.float32) * asked, 1)
            d_of_momentum += tl.where(i == slots - 1, tl.sum(tl.sum(momentum * d_memory, 1), 0), 0.0)
            d_q += of_momentum[:, None] * asked
            through = tl.dot(k, d_momentum.to(DOT), input_precision="tf32x3")
            d_error += push_last[:, None] * through
            d_push_last = tl.sum(error * through, 1)
            d_k += push_last[:, None] * tl.dot(error.to(DOT), tl.trans(d_momentum.to(DOT)), input_precision="tf32x3")
            tl.store(d_pushes_ptr + part * width + j, d_push_last, mask=in_j)
            tl.store(d_carried_ptr + part, tl.sum(tl.sum(momentum * d_momentum, 1), 0))
        if SQUARED:
            d_k -= tl.dot(d_error.to(DOT), tl.trans(anchor.to(DOT)), input_precision="tf32x3")
        of_read = (part * slots + i) * 2
        tl.store(d_reads_ptr + of_read, d_of_memory, mask=i < slots)
        tl.store(d_reads_ptr + of_read + 1, d_of_momentum, mask=i < slots)
        at = ((some * (units // heads) + row) * time + start + i[:, None]) * heads + head
        tl.store(d_q_ptr + at * DIM + d[None, :], d_q, mask=real[:, None] & in_d[None, :])
        tl.store(d_k_ptr + (part * width + j[:, None]) * DIM + d[None, :], d_k, mask=in_j[:, None] & in_d[None, :])
        of_v = ((unit * chunks + n) * width + j[:, None]) * OUT + e[None, :]
        tl.store(d_v_ptr + of_v, d_error, mask=in_j[:, None] & in_e[None, :])

        kept = tl.sum(tl.where(i == slots - 1, of_memory, 0.0), 0)
        if MOVING:
            moved = tl.sum(tl.where(i == slots - 1, of_momentum, 0.0), 0)
            d_momentum = tl.load(carried_ptr + unit * chunks + n) * d_momentum + moved * d_memory
            read = tl.trans((q.to(tl.float32) * of_momentum[:, None]).to(DOT))
            d_momentum += tl.dot(read, d_out.to(DOT), input_precision="tf32x3")
        read = tl.trans((q.to(tl.float32) * of_memory[:, None]).to(DOT))
        d_memory = kept * d_memory + tl.dot(read, d_out.to(DOT), input_precision="tf32x3")
        if SQUARED:
            d_anchor -= tl.dot(tl.trans(k), d_error.to(DOT), input_precision="tf32x3")
        if n > 0:
            d_memory += tl.where(count > 0, d_anchor, 0.0)
            d_anchor = tl.where(count > 0, 0.0, d_anchor)
        begin = tl.load(begins_ptr + row * chunks + n) != 0
        d_memory, d_momentum = tl.where(begin, 0.0, d_memory), tl.where(begin, 0.0, d_momentum)
    tl.store(d_first_ptr + whole, d_memory, mask=shown)
    tl.store(d_first_ptr + whole + DIM * OUT, d_momentum, mask=shown)
    tl.store(d_first_ptr + whole + 2 * DIM * OUT, d_anchor, mask=shown)


class _Learned(torch.autograd.Function):
    """q: [batch, time, heads, dim]; k, v: [batch, past + time, heads, ...]; writes, pushes: [batch, heads, chunks,
    slots, width]; reads: [.., slots, 2], for M and S; carried: [batch, heads, chunks]; starts, counts, begins: int32
    [batch, chunks]; memory, momentum, anchor: [batch, heads, dim, out]."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, moving, squared = inputs
        q, k, v, writes, pushes, reads, carried, starts, counts, begins, *memories = tensors
        (batch, time, heads, dim), out_dim, (chunks, slots, width) = q.shape, v.shape[-1], writes.shape[2:]
        settings = {
            "DIM": dim, "OUT": out_dim, "BC": tile(slots), "BW": tile(width),
            "BD": tile(dim), "BE": min(COLUMNS, tile(out_dim)), "MOVING": moving, "SQUARED": squared,
            "DOT": dot(v.dtype), "num_warps": 8 if dim > 64 else 4, "num_stages": 1,
        }  # fmt: skip
        keep = any(ctx.needs_input_grad)
        blocks = triton.cdiv(out_dim, settings["BE"])
        sizes = *(strides_of(x) for x in (q, k, v)), time, k.shape[1] - time, heads, chunks, slots, width
        tables = writes, pushes, reads, carried, starts, counts, begins
        out = torch.empty(batch, time, heads, out_dim, dtype=v.dtype, device=v.device)
        held = torch.empty(batch, heads, chunks if keep else 0, 2, dim, out_dim, dtype=v.dtype, device=v.device)
        last = torch.empty(batch, heads, 3, dim, out_dim, dtype=torch.float32, device=v.device)
        grid = (blocks * batch * heads,)
        _forward_kernel[grid](q, k, v, *tables, *memories, out, held, last, *sizes, **settings, KEEP=keep)
        ctx.save_for_backward(q, k, v, *tables, memories[2], held)
        ctx.launch = blocks, sizes, settings
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, writes, pushes, reads, carried, starts, *rest = ctx.saved_tensors
        blocks, sizes, settings = ctx.launch
        (batch, _, heads, dim), chunks, width, out_dim = q.shape, writes.shape[2], writes.shape[4], v.shape[-1]
        empty: dict[str, Any] = {"dtype": torch.float32, "device": q.device}
        d_q, d_writes, d_reads = (torch.empty(blocks, *x.shape, **empty) for x in (q, writes, reads))
        d_k = torch.empty(blocks, batch, heads, chunks, width, dim, **empty)
        d_v = torch.empty(batch, heads, chunks, width, out_dim, **empty)
        d_last_push = torch.zeros(blocks, batch, heads, chunks, width, **empty)
        d_carried = torch.zeros(blocks, *carried.shape, **empty)
        d_first = torch.empty(batch, heads, 3, dim, out_dim, **empty)
        _backward_kernel[(blocks * batch * heads,)](
            q, k, v, writes, pushes, reads, carried, starts, *rest, gradients[0].contiguous(),
            gradients[1].contiguous(), d_q, d_k, d_v, d_writes, d_last_push, d_reads, d_carried, d_first, *sizes,
            **settings,
        )  # fmt: skip
        d_pushes = torch.zeros_like(pushes)
        d_pushes[..., -1, :] = d_last_push.sum(0)
        found = [_overlapped(x, starts, like) for x, like in ((d_k.sum(0), k), (d_v, v))]
        summed = d_writes.sum(0), d_pushes, d_reads.sum(0), d_carried.sum(0)
        return d_q.sum(0).to(q.dtype), *found, *summed, None, None, None, *d_first.unbind(2), None, None


def _overlapped(x: Tensor, starts: Tensor, like: Tensor) -> Tensor:
    """Windows [batch, heads, chunks, width, ..] added up where they overlap, [batch, past + time, heads, ..]."""
    total = torch.zeros(like.shape, dtype=x.dtype, device=x.device)
    step = torch.arange(x.shape[3], device=x.device)
    place = (starts.unsqueeze(-1) + step).long()
    windows = x.permute(0, 2, 3, 1, 4)
    # A window's end may lie beyond the last token: there it holds nothing.
    windows = windows.masked_fill((place >= like.shape[1])[..., None, None], 0.0).flatten(1, 2)
    index = place.clamp(max=like.shape[1] - 1).flatten(1)[:, :, None, None].expand_as(windows)
    return total.scatter_add(1, index, windows).to(like.dtype)


class Memories(NamedTuple):
    """A memory, its momentum and its anchor, each [batch, heads, dim, out]."""

    memory: Tensor
    momentum: Tensor
    anchor: Tensor


def learned_matrix(
    q: Tensor, k: Tensor, v: Tensor, weights: Weights, cut: Windows, before: Memories, *, moving: bool, squared: bool
) -> tuple[Tensor, Memories]:
    """Outputs and last memories; k, v: [batch, past + time, heads, ...], weights with chunks on the third axis.

    The anchor handed in must be the memory where the first chunk starts a chunk of the mechanism.
    """
    batch, chunks = len(q), cut.real.shape[1]
    counts = cut.real[..., cut.past :].sum(-1)
    starts = torch.arange(chunks, device=q.device) * cut.slots if cut.start is None else cut.start
    tables = (x.to(torch.int32).expand(batch, -1).contiguous() for x in (starts, counts, cut.begins))
    lead = weights.writes.shape[:3]
    reads = torch.stack((weights.of_memory[..., 0], weights.of_momentum[..., 0]), -1).contiguous()
    carried = weights.carried[..., -1, 0].expand(lead).contiguous()
    floats = weights.writes.float().contiguous(), weights.pushes.float().contiguous(), reads.float(), carried.float()
    states = (x.float().contiguous() for x in before)
    out, last = _Learned.apply(rows(q), rows(k), rows(v), *floats, *tables, *states, moving, squared)
    memory, momentum, anchor = last.unbind(2)
    return out, Memories(memory, momentum, before.anchor if chunks == 1 else anchor)
