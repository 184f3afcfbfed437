"""Gated linear attention: a memory in which every key channel decays at its own rate (Yang et al., arXiv:2312.06635).

    S_t = diag(exp g_t) S_{t-1} + k_t v_t',    o_t = S_t' q_t

Over a chunk with rows Q, K, V, let C be the decays from the chunk's start up to each row, E those from each row to the
chunk's end, and P_ij = sum_d q_id k_jd (decay of d from j to i) for j <= i:

    O = (C * Q) S + P V,    S <- diag(c_last) S + (E * K)' V.

P is put together by `contexture.ops.decays`, whose factors are all at most one, so no decay is too strong.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; g: [batch, time, heads, dim], at most zero, -inf
allowed; S: [batch, heads, dim, out]. All is computed in fp32 at least. A change of segment sets S to zero. One decay
for all channels of a head is `contexture.ops.decayed_linear_attention`, at less cost.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops import dispatch
from contexture.ops.chunk_blocks import Factors, add_to, in_blocks
from contexture.ops.chunks import no_memory, silence, wide
from contexture.ops.decays import chunk_size, decayed_products, decayed_products_backward, forget_between_segments
from contexture.ops.segments import runs


def gated_linear_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    state = no_memory(k, v) if initial_state is None else initial_state
    outputs, dtype = [], v.dtype
    stretch = None if segments is None else runs(segments)
    q, k, v, g = (x.to(state.dtype) for x in (q, silence(k, segments), v, g))
    for t in range(q.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1, 1)
        state = torch.exp(g[:, t, :, :, None]) * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


class _Chunks(torch.autograd.Function):
    """The chunked form with its gradient written out; q, k, g: [chunks, batch, heads, size, dim], v: with out.

    Scaling a channel of S_t scales what is read from t on and not what is written from t on, so the gradient of g_t is
    the sum of q dq - k dk from t to the chunk's end, and that of S dS there over out.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        lead, kept = g.shape[:3], g.exp()
        decayed = decayed_products(q.flatten(0, 2), k.flatten(0, 2), kept.flatten(0, 2))
        scores, reads, writes = (torch.unflatten(x, 0, lead) for x in decayed[:3])
        total = torch.unflatten(decayed.total, 0, lead).unsqueeze(-1)
        states = []
        for added, factor in zip((writes.mT @ v).unbind(), total.unbind(), strict=True):
            states.append(state)
            state = torch.addcmul(added, state, factor)
        held = torch.stack((*states, state))
        ctx.save_for_backward(q, k, v, kept, scores, reads, writes, total, held)
        return add_to(reads @ held[:-1], scores, v), state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        d_out, d_state = gradients[0].contiguous(), gradients[1]
        q, k, v, kept, scores, reads, writes, total, held = ctx.saved_tensors
        ends = []
        for added, factor in zip(reversed((reads.mT @ d_out).unbind()), reversed(total.unbind()), strict=True):
            ends.append(d_state)
            d_state = torch.addcmul(added, d_state, factor)
        d_held = torch.stack(ends[::-1])
        d_v = add_to(writes @ d_held, scores.mT, d_out)
        d_scores, d_reads, d_writes = d_out @ v.mT, d_out @ held[:-1].mT, v @ d_held.mT
        parts = (x.flatten(0, 2) for x in (q, k, kept, d_scores, d_reads, d_writes))
        d_q, d_k, moved = (x.view_as(q) for x in decayed_products_backward(*parts))
        later = torch.linalg.vecdot(held[1:], d_held).unsqueeze(3)
        d_g = torch.ones_like(d_scores[0, 0, 0]).triu() @ moved + later
        return d_q, d_k, d_v, d_g, d_state


def gated_linear_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A tree of products inside chunks, a running sum of [dim, out] states between them."""
    size, held = chunk_size(q.shape[1]), wide(v.dtype)
    state = no_memory(k, v) if initial_state is None else initial_state

    def mix(rows: Sequence[Tensor], _: Factors | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        out, state = _Chunks.apply(*rows, state)  # type: ignore[no-untyped-call]
        return out, state

    rows = q, silence(k, segments), v, forget_between_segments(g.to(held), segments)
    out, state = in_blocks(mix, rows, state, size=size, segments=None, dtype=held)
    return silence(out.to(v.dtype), segments), state


def gated_linear_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    g: Float[Tensor, "batch time heads dim"],
    *,
    initial_state: Float[Tensor, "batch heads dim out"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Float[Tensor, "batch heads dim out"]]:
    """Read a sum of outer products whose rows are multiplied by exp(g) before each is added; returns outputs and sum.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> half = torch.full((1, 3, 1, 1), 0.5).log()
    >>> [round(x, 6) for x in gated_linear_attention(one, one, one, half)[0].flatten().tolist()]
    [1.0, 1.5, 1.75]
    """
    out, state = dispatch.run(OP, q, k, v, g, keys=q.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v, g = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(4))
    return q, k, v, torch.nn.functional.logsigmoid(g)


OP = dispatch.Op(
    name="gated-linear-attention",
    paths={"reference": gated_linear_attention_reference, "chunked": gated_linear_attention_chunked},
    call=gated_linear_attention,
    sample=_sample,
)
