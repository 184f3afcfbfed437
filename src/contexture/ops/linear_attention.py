"""Causal linear attention (Katharopoulos et al., 2020, arXiv:2006.16236), without feature map or normaliser.

    S_t = S_{t-1} + k_t v_t',    o_t = S_t' q_t

Over a chunk with rows Q, K, V and the memory S before it, and backward with dO and the dS of the chunk after:

    A = tril(Q K'),  O = Q S + A V,  S <- S + K' V
    B = tril(dO V'),  dQ = dO S' + B K,  dK = V dS' + B' Q,  dV = K dS + A' dO,  dS <- dS + Q' dO

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; S: [batch, heads, dim, out], in fp32 at least.
A change of segment sets S to zero. The gradient of the chunked form, which is written out, cannot be differentiated
once more; that of the reference can.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops import dispatch
from contexture.ops.chunk_blocks import Factors, add_to, in_blocks, scaled
from contexture.ops.chunks import chunk_size, no_memory, silence, wide
from contexture.ops.segments import runs

CHUNK = 64


def linear_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    state = no_memory(k, v) if initial_state is None else initial_state
    outputs, dtype = [], v.dtype
    stretch = None if segments is None else runs(segments)
    q, k, v = (x.to(state.dtype) for x in (q, silence(k, segments), v))
    for t in range(q.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1, 1)
        state = state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


def _running(sums: Tensor, first: Tensor, keeps: Tensor | None, *, backward: bool = False) -> tuple[Tensor, Tensor]:
    """The memory before every chunk, in the dtype of `sums`, and the last; or, backward, what follows every chunk."""
    states, state = torch.empty_like(sums), first
    order = range(len(sums))
    for n in reversed(order) if backward else order:
        states[n].copy_(state)
        state = sums[n] + scaled(state, None if keeps is None else keeps[n])
    return states, state


class _LinearChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        first: Tensor | None,
        within: Tensor | None,
        reads: Tensor | None,
        writes: Tensor | None,
        keeps: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        scores, sums = scaled(q @ k.mT, within).tril_(), scaled(k, writes).mT @ v
        if first is None and len(sums) == 1:
            states, out, last = None, scores @ v, sums[0].to(wide(v.dtype))
        else:
            first = sums.new_zeros(sums.shape[1:], dtype=wide(v.dtype)) if first is None else first
            states, last = _running(sums, first, keeps)
            out = add_to(scaled(q, reads) @ states, scores, v)
        ctx.save_for_backward(q, k, v, scores, states, within, reads, writes, keeps)
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, scores, states, within, reads, writes, keeps = ctx.saved_tensors
        d_out = d_out.contiguous()
        d_scores = scaled(d_out @ v.mT, within).tril_()
        if states is None:
            afters, d_first, d_q = d_last.to(v.dtype).unsqueeze(0), None, d_scores @ k
        else:
            afters, d_first = _running(scaled(q, reads).mT @ d_out, d_last, keeps, backward=True)
            d_q = add_to(scaled(d_out @ states.mT, reads), d_scores, k)
        d_k = add_to(scaled(v @ afters.mT, writes), d_scores.mT, q)
        d_v = add_to(scaled(k, writes) @ afters, scores.mT, d_out)
        d_first = d_first if ctx.needs_input_grad[3] else None
        return d_q, d_k, d_v, d_first, None, None, None, None


def linear_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Products inside chunks, a running sum of [dim, out] states between them."""

    def mix(rows: Sequence[Tensor], masks: Factors | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        out, state = _LinearChunks.apply(*rows, state, *(masks or (None,) * 4))  # type: ignore[no-untyped-call]
        return out, state

    rows, size = (q, silence(k, segments), v), chunk_size(q.shape[1], CHUNK)
    out, state = in_blocks(mix, rows, initial_state, size=size, segments=segments, dtype=v.dtype)
    return silence(out, segments), state


def linear_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    *,
    initial_state: Float[Tensor, "batch heads dim out"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Float[Tensor, "batch heads dim out"]]:
    """Read a sum of outer products after each is added; returns the outputs and the last sum.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> linear_attention(one, one, one)[0].flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    out, state = dispatch.run(OP, q, k, v, keys=q.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))


OP = dispatch.Op(
    name="linear-attention",
    paths={"reference": linear_attention_reference, "chunked": linear_attention_chunked},
    call=linear_attention,
    sample=_sample,
)
