"""The kernels of `contexture.ops.selective_scan`: every channel a diagonal state space of its own.

A program takes some channels of one row through time with their states in registers, 8 steps at a time, unrolled so
that loads run ahead. States are left in memory every 8 steps alone. Backward starts from each of these in turn, last
one first, takes the 8 steps again with states and decays in registers, and walks them back; so nothing of the
size of time * channels * N is ever written but 4 N / 8 B a channel and step. Where batch * channels are too few to
fill the device, time is split besides: each split first runs from an empty state, and what the splits before it come
to is put together by whoever needs it, since a split's decay is exp(A times its sum of dt).

Bound by exponentials: N of them a channel and step in either direction, at 16 a clock and multiprocessor (batch
8, length 8,192, 2,048 channels, N = 16: 2.1e9 exponentials = 0.6 ms forward on an H100, where 14 B a channel and step
for x, dt, y and the states kept are 1.9 GB = 0.63 ms at 3.0 TB/s).
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.segments import runs
from contexture.ops.triton.device import num_programs
from contexture.ops.triton.launch import rows
from contexture.ops.triton.steps import scan_step, single
from contexture.ops.triton.tiles import part_and_unit

STEPS = 8
"""Steps between two states that are kept."""
NUMBERS = 512
"""How many numbers of state a program holds."""


@triton.jit
def _place(channels, splits, BC: tl.constexpr):
    """A program's block of channels, its row and its split of time."""
    some, unit = part_and_unit(tl.cdiv(channels, BC))
    return some, unit // splits, (unit % splits).to(tl.int32)


@triton.jit
def _ends_kernel(
    x_ptr, dt_ptr, a_ptr, b_ptr, starts_ptr, ends_ptr, sums_ptr,
    x_row, x_time, dt_row, dt_time, b_row, b_time, time, channels, batch_per_group, blocks, splits,
    SIZE: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, STEPS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """What a split ends with if it begins with nothing, and the sum of its dt, infinite where a segment starts."""
    some, row, split = _place(channels, splits, BC)
    c, n = some * BC + tl.arange(0, BC), tl.arange(0, BN)
    in_c, in_n = c < channels, n < SIZE
    shown = in_c[:, None] & in_n[None, :]
    at_a = (row // batch_per_group * channels + c[:, None]) * SIZE + n[None, :]
    rate = tl.load(a_ptr + at_a, mask=shown, other=0.0).to(tl.float32)
    state, total = tl.zeros([BC, BN], tl.float32), tl.zeros([BC], tl.float32)
    x_ptr += row * x_row + c
    dt_ptr += row * dt_row + c
    b_ptr += row * b_row + n
    starts_ptr += row * time
    for block in range(split * blocks // splits, (split + 1) * blocks // splits):
        for u in tl.static_range(STEPS):
            t = tl.cast(block * STEPS + u, tl.int64)
            there = t < time
            x = tl.load(x_ptr + t * x_time, mask=in_c & there, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + t * dt_time, mask=in_c & there, other=0.0).to(tl.float32)
            b = tl.load(b_ptr + t * b_time, mask=in_n & there, other=0.0).to(tl.float32)
            if PACKED:
                start = tl.load(starts_ptr + t, mask=there, other=0) != 0
                state = tl.where(start, 0.0, state)
                total = tl.where(start, float("inf"), total)
            state = tl.exp(dt[:, None] * rate) * state + (dt * x)[:, None] * b[None, :]
            total += dt
    at = (row * splits + split) * channels + c
    tl.store(ends_ptr + at[:, None] * SIZE + n[None, :], state, mask=shown)
    tl.store(sums_ptr + at, total, mask=in_c)


@triton.jit
def _backward_ends_kernel(
    d_y_ptr, dt_ptr, a_ptr, c_ptr, starts_ptr, ends_ptr,
    dt_row, dt_time, c_row, c_time, time, channels, batch_per_group, blocks, splits,
    SIZE: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, STEPS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """What a split asks of the state before it on behalf of its own outputs."""
    some, row, split = _place(channels, splits, BC)
    c, n = some * BC + tl.arange(0, BC), tl.arange(0, BN)
    in_c, in_n = c < channels, n < SIZE
    shown = in_c[:, None] & in_n[None, :]
    at_a = (row // batch_per_group * channels + c[:, None]) * SIZE + n[None, :]
    rate = tl.load(a_ptr + at_a, mask=shown, other=0.0).to(tl.float32)
    d_state = tl.zeros([BC, BN], tl.float32)
    dt_ptr += row * dt_row + c
    c_ptr += row * c_row + n
    starts_ptr += row * time
    d_y_ptr += row * time * channels + c
    first, after = split * blocks // splits, (split + 1) * blocks // splits
    for back in range(after - first):
        block = after - 1 - back
        for u in tl.static_range(STEPS):
            t = tl.cast(block * STEPS + STEPS - 1 - u, tl.int64)
            there = t < time
            d_y = tl.load(d_y_ptr + t * channels, mask=in_c & there, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + t * dt_time, mask=in_c & there, other=0.0).to(tl.float32)
            reads = tl.load(c_ptr + t * c_time, mask=in_n & there, other=0.0).to(tl.float32)
            d_state = (d_state + d_y[:, None] * reads[None, :]) * tl.exp(dt[:, None] * rate)
            if PACKED:
                start = tl.load(starts_ptr + t, mask=there, other=0) != 0
                d_state = tl.where(start, 0.0, d_state)
    at = (row * splits + split) * channels + c
    tl.store(ends_ptr + at[:, None] * SIZE + n[None, :], d_state, mask=shown)


@triton.jit
def _forward_kernel(
    x_ptr, dt_ptr, a_ptr, b_ptr, c_ptr, starts_ptr, state_ptr, ends_ptr, sums_ptr, y_ptr, last_ptr, kept_ptr,
    x_row, x_time, dt_row, dt_time, b_row, b_time, c_row, c_time, time, channels, batch_per_group, blocks, splits,
    SIZE: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, STEPS: tl.constexpr, PACKED: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """Some channels of one row through one split of time."""
    some, row, split = _place(channels, splits, BC)
    c, n = some * BC + tl.arange(0, BC), tl.arange(0, BN)
    in_c, in_n = c < channels, n < SIZE
    shown = in_c[:, None] & in_n[None, :]
    place = c[:, None] * SIZE + n[None, :]
    rate = tl.load(a_ptr + row // batch_per_group * channels * SIZE + place, mask=shown, other=0.0).to(tl.float32)
    state = tl.load(state_ptr + row * channels * SIZE + place, mask=shown, other=0.0)
    for before in range(split):
        at = (row * splits + before) * channels
        total = tl.load(sums_ptr + at + c, mask=in_c, other=0.0)
        decay = tl.where((total == float("inf"))[:, None], 0.0, tl.exp(total[:, None] * rate))
        state = decay * state + tl.load(ends_ptr + at * SIZE + place, mask=shown, other=0.0)
    x_ptr += row * x_row + c
    dt_ptr += row * dt_row + c
    b_ptr += row * b_row + n
    c_ptr += row * c_row + n
    starts_ptr += row * time
    y_ptr += row * time * channels + c
    for block in range(split * blocks // splits, (split + 1) * blocks // splits):
        if KEEP:
            tl.store(kept_ptr + (row * blocks + block) * channels * SIZE + place, state, mask=shown)
        for u in tl.static_range(STEPS):
            t = tl.cast(block * STEPS + u, tl.int64)
            there = t < time
            x = tl.load(x_ptr + t * x_time, mask=in_c & there, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + t * dt_time, mask=in_c & there, other=0.0).to(tl.float32)
            b = tl.load(b_ptr + t * b_time, mask=in_n & there, other=0.0).to(tl.float32)
            reads = tl.load(c_ptr + t * c_time, mask=in_n & there, other=0.0).to(tl.float32)
            if PACKED:
                start = tl.load(starts_ptr + t, mask=there, other=0) != 0
                state = tl.where(start, 0.0, state)
            state = tl.exp(dt[:, None] * rate) * state + (dt * x)[:, None] * b[None, :]
            y = tl.sum(state * reads[None, :], 1)
            tl.store(y_ptr + t * channels, y.to(y_ptr.dtype.element_ty), mask=in_c & there)
    if split == splits - 1:
        tl.store(last_ptr + row * channels * SIZE + place, state, mask=shown)


@triton.jit
def _backward_kernel(
    x_ptr, dt_ptr, a_ptr, b_ptr, c_ptr, starts_ptr, kept_ptr, sums_ptr, ends_ptr, d_y_ptr, d_last_ptr,
    d_x_ptr, d_dt_ptr, d_a_ptr, d_b_ptr, d_c_ptr, d_state_ptr,
    x_row, x_time, dt_row, dt_time, b_row, b_time, c_row, c_time, time, channels, batch_per_group, blocks, splits,
    SIZE: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr, STEPS: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """The same, backwards: 8 steps again, then their gradients; those of B and C are summed over its channels."""
    some, row, split = _place(channels, splits, BC)
    c, n = some * BC + tl.arange(0, BC), tl.arange(0, BN)
    in_c, in_n = c < channels, n < SIZE
    shown = in_c[:, None] & in_n[None, :]
    place = c[:, None] * SIZE + n[None, :]
    rate = tl.load(a_ptr + row // batch_per_group * channels * SIZE + place, mask=shown, other=0.0).to(tl.float32)
    d_state = tl.load(d_last_ptr + row * channels * SIZE + place, mask=shown, other=0.0)
    for back in range(splits - 1 - split):
        at = (row * splits + splits - 1 - back) * channels
        total = tl.load(sums_ptr + at + c, mask=in_c, other=0.0)
        decay = tl.where((total == float("inf"))[:, None], 0.0, tl.exp(total[:, None] * rate))
        d_state = decay * d_state + tl.load(ends_ptr + at * SIZE + place, mask=shown, other=0.0)
    d_rate = tl.zeros([BC, BN], tl.float32)
    x_ptr += row * x_row + c
    dt_ptr += row * dt_row + c
    b_ptr += row * b_row + n
    c_ptr += row * c_row + n
    starts_ptr += row * time
    d_y_ptr += row * time * channels + c
    d_x_ptr += row * time * channels + c
    d_dt_ptr += row * time * channels + c
    rows = tl.num_programs(0) // (tl.cdiv(channels, BC) * splits)
    d_b_ptr += (some * rows + row) * time * SIZE + n
    d_c_ptr += (some * rows + row) * time * SIZE + n
    first, after = split * blocks // splits, (split + 1) * blocks // splits
    for back in range(after - first):
        block = after - 1 - back
        state = tl.load(kept_ptr + (row * blocks + block) * channels * SIZE + place, mask=shown, other=0.0)
        passed, decays, inputs, rates, writes = (state,), (), (), (), ()
        for u in tl.static_range(STEPS):
            t = tl.cast(block * STEPS + u, tl.int64)
            there = t < time
            x = tl.load(x_ptr + t * x_time, mask=in_c & there, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + t * dt_time, mask=in_c & there, other=0.0).to(tl.float32)
            b = tl.load(b_ptr + t * b_time, mask=in_n & there, other=0.0).to(tl.float32)
            decay = tl.exp(dt[:, None] * rate)
            if PACKED:
                decay = tl.where(tl.load(starts_ptr + t, mask=there, other=0) != 0, 0.0, decay)
            state = decay * state + (dt * x)[:, None] * b[None, :]
            passed, decays, inputs = passed + (state,), decays + (decay,), inputs + (x,)  # type: ignore[assignment]  # noqa: RUF005
            rates, writes = rates + (dt,), writes + (b,)  # type: ignore[assignment]  # noqa: RUF005
        for u in tl.static_range(STEPS - 1, -1, -1):
            t = tl.cast(block * STEPS + u, tl.int64)
            there = t < time
            x, dt = inputs[u], rates[u]
            reads = tl.load(c_ptr + t * c_time, mask=in_n & there, other=0.0).to(tl.float32)
            d_y = tl.load(d_y_ptr + t * channels, mask=in_c & there, other=0.0).to(tl.float32)
            d_state += d_y[:, None] * reads[None, :]
            d_c = tl.sum(d_y[:, None] * passed[u + 1], 0)
            d_b = tl.sum(d_state * (dt * x)[:, None], 0)
            d_u = tl.sum(d_state * writes[u][None, :], 1)
            d_state *= decays[u]
            moved = d_state * passed[u]
            d_rate += moved * dt[:, None]
            d_dt = tl.sum(moved * rate, 1) + x * d_u
            tl.store(d_x_ptr + t * channels, (dt * d_u).to(d_x_ptr.dtype.element_ty), mask=in_c & there)
            tl.store(d_dt_ptr + t * channels, d_dt.to(d_dt_ptr.dtype.element_ty), mask=in_c & there)
            tl.store(d_b_ptr + t * SIZE, d_b, mask=in_n & there)
            tl.store(d_c_ptr + t * SIZE, d_c, mask=in_n & there)
    tl.store(d_a_ptr + (row * splits + split) * channels * SIZE + place, d_rate, mask=shown)
    if split == 0:
        tl.store(d_state_ptr + row * channels * SIZE + place, d_state, mask=shown)


def _lead(x: Tensor) -> tuple[int, int]:
    return x.stride(0), x.stride(1)


class _Scan(torch.autograd.Function):
    """x, dt: [batch, time, channels]; A: [groups, channels, N]; B, C: [batch, time, N]; state: [batch, channels, N]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, starts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        (batch, time, channels), size = x.shape, A.shape[-1]
        width = triton.next_power_of_2(size)
        some = max(1, min(64, NUMBERS // width))
        blocks, groups = triton.cdiv(time, STEPS), triton.cdiv(channels, some)
        splits = max(1, min(blocks, num_programs(x.device, each=8) // (batch * groups), 32))
        grid = (groups * batch * splits,)
        sizes = time, channels, batch // len(A), blocks, splits
        settings = {"SIZE": size, "BC": some, "BN": width, "STEPS": STEPS, "PACKED": starts is not None}
        keep = any(ctx.needs_input_grad)
        empty: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
        ends = torch.empty(batch, splits, channels, size, **empty) if splits > 1 else state
        sums = torch.empty(batch, splits, channels, **empty) if splits > 1 else state
        kept = torch.empty(batch, blocks, channels, size, **empty) if keep else state
        marks = x if starts is None else starts
        if splits > 1:
            _ends_kernel[grid](
                x, dt, A, B, marks, ends, sums, *_lead(x), *_lead(dt), *_lead(B), *sizes, **settings, num_warps=1
            )
        y, last = torch.empty(batch, time, channels, dtype=x.dtype, device=x.device), torch.empty(state.shape, **empty)
        strides = *_lead(x), *_lead(dt), *_lead(B), *_lead(C)
        _forward_kernel[grid](
            x, dt, A, B, C, marks, state, ends, sums, y, last, kept, *strides, *sizes, **settings, KEEP=keep,
            num_warps=1,
        )  # fmt: skip
        ctx.save_for_backward(x, dt, A, B, C, starts, kept, sums)
        ctx.launch = grid, groups, strides, sizes, settings
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, starts, kept, sums = ctx.saved_tensors
        grid, groups, strides, sizes, settings = ctx.launch
        (batch, time, channels), size, splits = x.shape, A.shape[-1], sizes[-1]
        d_y, d_last = gradients[0].contiguous(), gradients[1].contiguous()
        marks = x if starts is None else starts
        empty: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
        ends = torch.empty(batch, splits, channels, size, **empty) if splits > 1 else kept
        if splits > 1:
            _backward_ends_kernel[grid](
                d_y, dt, A, C, marks, ends, *_lead(dt), *_lead(C), *sizes, **settings, num_warps=1
            )
        d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        d_dt = torch.empty(dt.shape, dtype=dt.dtype, device=x.device)
        d_A = torch.empty(batch, splits, channels, size, **empty)
        d_B, d_C = (torch.empty(groups, batch, time, size, **empty) for _ in range(2))
        d_state = torch.empty(batch, channels, size, **empty)
        _backward_kernel[grid](
            x, dt, A, B, C, marks, kept, sums, ends, d_y, d_last, d_x, d_dt, d_A, d_B, d_C, d_state,
            *strides, *sizes, **settings, num_warps=4,
        )  # fmt: skip
        d_A = torch.unflatten(d_A, 0, (len(A), -1)).sum((1, 2)).to(A.dtype)
        return d_x, d_dt, d_A, d_B.sum(0).to(B.dtype), d_C.sum(0).to(C.dtype), d_state, None


def selective_scan_triton(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, state: Tensor, segments: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States in registers, kept every 8 steps."""
    if single(x, dt, A, B, C, state, segments=segments):
        return scan_step(x, dt, A, B, C, state=state)
    starts = None if segments is None else F.pad(runs(segments).diff(dim=1) != 0, (1, 0)).to(torch.int8)
    tensors = rows(x), rows(dt), A.contiguous(), rows(B), rows(C), state.float().contiguous(), starts
    out: tuple[Tensor, Tensor] = _Scan.apply(*tensors)
    return out
