"""The kernels of `contexture.ops.native_hybrid_attention`: slots and window under one softmax, in one pass.

Forward is two kernels: one takes the slots through time, a block of columns a program, and leaves them before every
chunk of 32 in the inputs' dtype; the other makes a chunk's outputs, with neither logits nor weights ever in memory.
Backward makes logits anew from the saved log-sums: queries (which leaves p and the logits' gradients, [time, slots]),
slots backwards in time, what was written, and the window's keys. `native_hybrid_kernels` has the algebra.

Bound by bytes at small windows: 6 * dim * 2 B of rows and 2 * slots B of decays a token and head, and slots * 2 dim *
2 B a chunk each way for the states (batch 8, 16 heads of 128, length 8,192, 64 slots: 1.75 GB of rows and 2 * 1.07 GB
of states = 1.3 ms forward at 3.0 TB/s). Products: 12 * 32 * dim + 8 * slots * dim + 4 * window' * dim FLOPs a token and
head, with window' the window rounded up to tiles: 155 GFLOP = 0.2 ms there at window 24.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.chunks import silence
from contexture.ops.native_hybrid_attention import LOWEST, HybridState, _after, _begun, _visible
from contexture.ops.triton import native_hybrid_kernels as kernels
from contexture.ops.triton.launch import dot, rows, tile
from contexture.ops.triton.tiles import strides_of

CHUNK = 32
COLUMNS = 64
"""How many columns of the slots one program takes through time."""


class _Hybrid(torch.autograd.Function):
    """q, k, v, f, qw: [batch, time, heads, ...]; keys, values: [batch, past + time, heads, ...]; slots: [batch, heads,
    slots, dim + out]; ids, key_ids: int32 [batch, time] and [batch, past + time]."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        f: Tensor,
        qw: Tensor,
        keys: Tensor,
        values: Tensor,
        slots: Tensor,
        ids: Tensor,
        key_ids: Tensor,
        window: int,
        scale: float,
        packed: bool,
    ) -> tuple[Tensor, Tensor]:
        (batch, time, heads, dim), out_dim, count = q.shape, v.shape[-1], f.shape[-1]
        chunks, units, columns = triton.cdiv(time, CHUNK), batch * heads, dim + out_dim
        past = keys.shape[1] - time
        common = {"SLOTS": count, "BC": CHUNK, "LOWEST": LOWEST, "PACKED": packed, "DOT": dot(v.dtype)}
        common["BM"] = tile(max(1, count))
        sizes = {"DIM": dim, "OUT": out_dim, "BD": tile(dim), "BE": tile(out_dim)}
        wide = "tf32x3" if v.dtype == torch.float32 else "tf32"
        held = torch.empty(units, chunks, count, columns, dtype=v.dtype, device=v.device)
        last = torch.empty(slots.shape, dtype=torch.float32, device=v.device)
        for x, first, width in ((k, 0, dim), (v, dim, out_dim)) if count else ():
            some = min(COLUMNS, tile(width))
            kernels.states_kernel[(triton.cdiv(width, some) * units,)](
                x, f, ids, slots, held, last, strides_of(x), strides_of(f), time, heads, columns, first,
                WIDTH=width, BX=some, **common, num_warps=4,
            )  # fmt: skip
        out = torch.empty(batch, time, heads, out_dim, dtype=v.dtype, device=v.device)
        lse = torch.empty(batch, time, heads, dtype=torch.float32, device=v.device)
        given = q, k, v, f, qw, keys, values, ids, key_ids, held
        strides = tuple(strides_of(x) for x in (q, k, v, f, qw, keys, values))
        kernels.outputs_kernel[(chunks * units,)](
            *given, out, lse, *strides, time, past, heads, window, scale, **sizes, **common, WIDE=wide,
            num_warps=8 if max(sizes["BD"], sizes["BE"]) > 128 else 4, num_stages=2,
        )  # fmt: skip
        ctx.save_for_backward(*given, out, lse, last)
        ctx.launch = strides, (time, past, heads, window, scale), sizes, common, wide
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *given, out, lse, last = ctx.saved_tensors
        q, k, v, f, qw, keys, values, ids, key_ids, held = given
        strides, (time, past, heads, window, scale), sizes, common, wide = ctx.launch
        d_out, d_last = gradients[0].contiguous(), gradients[1].contiguous()
        (batch, _, _, dim), out_dim, count = q.shape, v.shape[-1], f.shape[-1]
        chunks, units, columns, device = triton.cdiv(time, CHUNK), batch * heads, dim + out_dim, v.device

        def like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
            return torch.empty(x.shape, dtype=dtype or x.dtype, device=device)

        d_q, d_k, d_v, d_f, d_qw, d_keys, d_values = (like(x) for x in (q, k, v, f, qw, keys, values))
        delta, weights, d_logits, read = like(lse), like(f, v.dtype), like(f, v.dtype), like(f, torch.float32)
        kernels.queries_kernel[(chunks * units,)](
            *given, out, lse, d_out, d_q, d_qw, delta, weights, d_logits, read, *strides, time, past, heads, window,
            scale, **sizes, **common, WIDE=wide, num_warps=8, num_stages=1,
        )  # fmt: skip
        kernels.window_kernel[(triton.cdiv(past + time, CHUNK) * units,)](
            qw, keys, values, ids, key_ids, lse, delta, d_out, d_keys, d_values, *strides[4:], time, past, heads,
            window, scale, **sizes, BC=CHUNK, DOT=common["DOT"], num_warps=4, num_stages=1,
        )  # fmt: skip
        d_slots, d_held = like(last), like(held)
        taken = torch.empty(units, chunks, CHUNK + 1, count, dtype=torch.float32, device=device)
        parts = ((k, q, d_logits, d_k, 0, dim), (v, d_out, weights, d_v, dim, out_dim))
        for x, y, by, d_x, first, width in parts if count else ():
            some = min(COLUMNS, tile(width))
            kernels.backward_states_kernel[(triton.cdiv(width, some) * units,)](
                y, by, f, ids, d_last, d_held, d_slots, strides_of(y), strides_of(f), time, heads, columns, first,
                WIDTH=width, BX=some, **common, num_warps=4,
            )  # fmt: skip
            kernels.writes_kernel[(chunks * units,)](
                x, y, by, read, f, ids, held, last, d_held, d_x, taken, d_f,
                strides_of(x), strides_of(y), strides_of(f), time, heads, columns, first, WIDTH=width,
                BX=tile(width), WIDE=wide, LAST=first > 0, **common, num_warps=8, num_stages=1,
            )  # fmt: skip
        if not count:
            d_q, d_k, d_v = (torch.zeros_like(x) for x in (q, k, v))
        return d_q, d_k, d_v, d_f, d_qw, d_keys, d_values, d_slots, None, None, None, None, None


def native_hybrid_attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    qw: Tensor,
    kw: Tensor,
    *,
    window: int,
    scale: float,
    initial_state: HybridState | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, HybridState]:
    """Slots through time, then all chunks at once."""
    time = q.shape[1]
    state = _begun(v, decay, kw, min(window, time)) if initial_state is None else initial_state
    there, stretch = _visible(state, time, segments)
    past = state.keys.shape[1]
    keys, values = (torch.cat(pair, 1) if past else pair[1] for pair in ((state.keys, kw), (state.values, v)))
    key_ids = stretch.masked_fill(~there, -1).to(torch.int32).expand(q.shape[0], -1).contiguous()
    ids = stretch[:, past:].to(torch.int32).expand(q.shape[0], -1).contiguous()
    tensors = (rows(x) for x in (q, silence(k, segments), silence(v, segments), decay, qw, keys, values))
    slots = state.slots.float().contiguous()
    out, last = _Hybrid.apply(*tensors, slots, ids, key_ids, window, scale, segments is not None)
    return silence(out, segments), _after(state, last, kw, v, window=window, segments=segments)
