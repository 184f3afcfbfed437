"""One token of a memory of constant size, in one kernel: what every generated token costs.

    S <- diag(a) S,    S <- S + b k (v - S'k)'  or  S + k v',    o = S'q

with a = 1 (linear attention, delta rule), exp(g) a head (retention, Mamba-2, gated delta rule) or exp(g) a channel
(gated linear attention), the error v - S'k where there is a rate b, and the plain value where there is none. The
selective scan's step, h <- exp(dt A) h + dt x B', y = C.h, is a kernel of its own: its state is diagonal.

q, k: [batch, 1, heads, dim]; v, o: [batch, 1, heads, out]; g: [batch, 1, heads] or [batch, 1, heads, dim]; b: [batch,
1, heads]; S: [batch, heads, dim, out] in fp32. A new memory is returned.

Bound by bytes: the memory is read and written once, 8 * dim * out B a head (batch 8, 16 heads of 128 by 128: 16.8 MB,
5.6 us at 3.0 TB/s), for 6 FLOPs a number. Separate calls for decay, recall, write and read would pass it through memory
four times or more, and take as many launches. A program holds all rows of 32 columns, since columns do not meet.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from contexture.ops.chunks import no_memory
from contexture.ops.triton.launch import handed_in, rows, tile

COLUMNS = 32
NONE, HEAD, CHANNEL = 0, 1, 2
"""What decays: nothing, a head as a whole, or each of its channels."""


@triton.jit
def _memory_kernel(
    q_ptr, k_ptr, v_ptr, g_ptr, beta_ptr, state_ptr, out_ptr, new_ptr,
    q_batch, q_head, k_batch, k_head, v_batch, v_head, g_batch, g_head, beta_batch, beta_head, heads,
    DIM: tl.constexpr, OUT: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, DECAY: tl.constexpr, DELTA: tl.constexpr,
):  # fmt: skip
    """All rows of a few columns of one head's memory."""
    unit = tl.program_id(0).to(tl.int64)
    row, head = unit // heads, unit % heads
    d, e = tl.arange(0, BD), tl.program_id(1) * BE + tl.arange(0, BE)
    in_d, in_e = d < DIM, e < OUT
    at = (unit * DIM + d[:, None]) * OUT + e[None, :]
    shown = in_d[:, None] & in_e[None, :]
    state = tl.load(state_ptr + at, mask=shown, other=0.0)
    q = tl.load(q_ptr + row * q_batch + head * q_head + d, mask=in_d, other=0.0).to(tl.float32)
    k = tl.load(k_ptr + row * k_batch + head * k_head + d, mask=in_d, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + row * v_batch + head * v_head + e, mask=in_e, other=0.0).to(tl.float32)
    if DECAY == 1:
        state *= tl.exp(tl.load(g_ptr + row * g_batch + head * g_head).to(tl.float32))
    if DECAY == 2:
        g = tl.load(g_ptr + row * g_batch + head * g_head + d, mask=in_d, other=0.0).to(tl.float32)
        state *= tl.exp(g)[:, None]
    if DELTA:
        beta = tl.load(beta_ptr + row * beta_batch + head * beta_head).to(tl.float32)
        v = beta * (v - tl.sum(k[:, None] * state, 0))
    state += k[:, None] * v[None, :]
    out = tl.sum(q[:, None] * state, 0)
    tl.store(new_ptr + at, state, mask=shown)
    tl.store(out_ptr + unit * OUT + e, out.to(out_ptr.dtype.element_ty), mask=in_e)


@triton.jit
def _scan_kernel(
    x_ptr, dt_ptr, a_ptr, b_ptr, c_ptr, state_ptr, out_ptr, new_ptr,
    x_batch, dt_batch, b_batch, c_batch, channels, batch_per_group,
    SIZE: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """A few channels of one row."""
    row = tl.program_id(0).to(tl.int64)
    c, n = tl.program_id(1) * BC + tl.arange(0, BC), tl.arange(0, BN)
    in_c, in_n = c < channels, n < SIZE
    shown = in_c[:, None] & in_n[None, :]
    at = (row * channels + c[:, None]) * SIZE + n[None, :]
    rate = tl.load(a_ptr + (row // batch_per_group * channels + c[:, None]) * SIZE + n[None, :], mask=shown, other=0.0)
    x = tl.load(x_ptr + row * x_batch + c, mask=in_c, other=0.0).to(tl.float32)
    dt = tl.load(dt_ptr + row * dt_batch + c, mask=in_c, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + row * b_batch + n, mask=in_n, other=0.0).to(tl.float32)
    reads = tl.load(c_ptr + row * c_batch + n, mask=in_n, other=0.0).to(tl.float32)
    state = tl.load(state_ptr + at, mask=shown, other=0.0)
    state = tl.exp(dt[:, None] * rate.to(tl.float32)) * state + (dt * x)[:, None] * b[None, :]
    out = tl.sum(state * reads[None, :], 1)
    tl.store(new_ptr + at, state, mask=shown)
    tl.store(out_ptr + row * channels + c, out.to(out_ptr.dtype.element_ty), mask=in_c)


def _lead(x: Tensor) -> tuple[int, int]:
    return x.stride(0), x.stride(2)


def single(*tensors: Tensor | None, segments: Tensor | None) -> bool:
    """Whether one step is all there is to do: one token, of which no gradient is asked."""
    given = [x for x in tensors if x is not None]
    asked = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    return given[0].shape[1] == 1 and segments is None and not asked


def memory_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One token's output and the memory after it; log-decays of three axes are a head's, of four its channels'.

    Has no gradient: training takes the chunked kernels, also for one token.
    """
    (batch, _, heads, dim), out_dim = q.shape, v.shape[-1]
    q, k, v = rows(q), rows(k), rows(v)
    state = no_memory(k, v) if state is None else handed_in(state)
    new = torch.empty(state.shape, dtype=state.dtype, device=state.device)
    out = torch.empty(batch, 1, heads, out_dim, dtype=v.dtype, device=v.device)
    kind = NONE if log_decay is None else (CHANNEL if log_decay.dim() == 4 else HEAD)
    g = q if log_decay is None else (rows(log_decay) if kind == CHANNEL else log_decay)
    rate = q if beta is None else beta
    columns = min(COLUMNS, tile(out_dim))
    _memory_kernel[(batch * heads, triton.cdiv(out_dim, columns))](
        q, k, v, g, rate, state, out, new, *_lead(q), *_lead(k), *_lead(v), *_lead(g), *_lead(rate), heads,
        DIM=dim, OUT=out_dim, BD=tile(dim), BE=columns, DECAY=kind, DELTA=beta is not None, num_warps=4,
    )  # fmt: skip
    return out, new


def scan_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of the selective scan and the state after it; the shapes are the op's. Has no gradient."""
    (batch, _, channels), size = x.shape, A.shape[-1]
    x, dt, A, B, C = rows(x), rows(dt), A.contiguous(), rows(B), rows(C)
    state = handed_in(state)
    new = torch.empty(state.shape, dtype=state.dtype, device=state.device)
    out = torch.empty(batch, 1, channels, dtype=x.dtype, device=x.device)
    width = tile(size)
    some = max(1, 2048 // width)
    _scan_kernel[(batch, triton.cdiv(channels, some))](
        x, dt, A, B, C, state, out, new, x.stride(0), dt.stride(0), B.stride(0), C.stride(0), channels,
        batch // len(A), SIZE=size, BC=some, BN=width, num_warps=4,
    )  # fmt: skip
    return out, new
