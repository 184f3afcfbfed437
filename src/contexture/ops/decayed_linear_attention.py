"""Linear attention whose memory decays by one factor per head and step (retention, Mamba-2, mLSTM and their kin).

    S_t = exp(g_t) S_{t-1} + k_t v_t',    o_t = S_t' q_t

(RetNet, Sun et al., arXiv:2307.08621, with g constant; Mamba-2, Dao & Gu, arXiv:2405.21060, with g from the input.)
Over a chunk with rows Q, K, V, let D_ij be the decay from j to i, c_i that from the chunk's start to i and e_j that
from j to its end:

    O = c Q S + (Q K' * D) V,    S <- c_last S + (e K)' V.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; g: [batch, time, heads], at most zero, -inf allowed;
S: [batch, heads, dim, out]. All is computed in fp32 at least. A change of segment sets S to zero.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops import dispatch
from contexture.ops.chunk_blocks import Factors, add_to, in_blocks
from contexture.ops.chunks import chunk_size, no_memory, silence, wide
from contexture.ops.decays import forget_between_segments
from contexture.ops.segments import runs

CHUNK = 64


def decayed_linear_attention_reference(
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
        state = torch.exp(g[:, t, :, None, None]) * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


class Decays(NamedTuple):
    """A chunk's decays: from j to i, [..., size, size]; from its start to i and from j to its end, [..., size, 1]; and
    of the whole chunk, [..., 1, 1]."""

    within: Tensor
    reads: Tensor
    writes: Tensor
    total: Tensor


def decays(g: Float[Tensor, "*lead size"]) -> Decays:
    """Exponentials of sums of log-decays, none of them above one.

    Sums are differences of cumulative sums in fp64, so that a strong decay costs the weak ones after it no digits;
    below -800, where exp gives zero in any dtype, nothing is told apart.
    """
    summed = g.double().clamp(min=-800).cumsum(-1)
    last = summed[..., -1:]
    between = (summed.unsqueeze(-1) - summed.unsqueeze(-2)).clamp_(max=0).to(g.dtype)
    reads, writes, total = (x.to(g.dtype).exp().unsqueeze(-1) for x in (summed, last - summed, last))
    return Decays(between.exp_().tril_(), reads, writes, total)


class _Chunks(torch.autograd.Function):
    """The chunked form with its gradient written out.

    q, k: [chunks, batch, heads, size, dim]; v: the same with out; g: [chunks, batch, heads, size].
    The gradient of g_t sums what passes step t: what i >= t reads of j < t, of the state before the chunk, and what
    j < t and that state hand to the next chunk.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        within, reads, writes, total = decays(g)
        scores = (q @ k.mT).mul_(within)
        states = []
        for added, kept in zip((k.mT @ (v * writes)).unbind(), total.unbind(), strict=True):
            states.append(state)
            state = torch.addcmul(added, state, kept)
        held = torch.stack(states)
        ctx.save_for_backward(q, k, v, within, reads, writes, total, scores, held)
        return add_to((q @ held).mul_(reads), scores, v), state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        d_out, d_state = gradients[0].contiguous(), gradients[1]
        q, k, v, within, reads, writes, total, scores, held = ctx.saved_tensors
        d_read, ends = d_out * reads, []
        for added, kept in zip(reversed((q.mT @ d_read).unbind()), reversed(total.unbind()), strict=True):
            ends.append(d_state)
            d_state = torch.addcmul(added, d_state, kept)
        d_held = torch.stack(ends[::-1])
        d_v = add_to((k @ d_held).mul_(writes), scores.mT, d_out)
        d_scores, d_q, d_k = d_out @ v.mT, d_read @ held.mT, (v * writes) @ d_held.mT
        through = d_scores * scores
        read = through.sum(-1) - through.sum(-2) + torch.linalg.vecdot(q, d_q)
        written = torch.linalg.vecdot(k, d_k)
        kept = torch.linalg.vecdot(held.flatten(-2), d_held.flatten(-2)) * total[..., 0, 0]
        d_g = read.flip(-1).cumsum(-1).flip(-1) + written.cumsum(-1) - written + kept.unsqueeze(-1)
        d_scores.mul_(within)
        return add_to(d_q, d_scores, k), add_to(d_k, d_scores.mT, q), d_v, d_g, d_state


def decayed_linear_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Products inside chunks, a running sum of [dim, out] states between them; a segment's start is a decay of zero."""
    size, held = chunk_size(q.shape[1], CHUNK), wide(v.dtype)
    state = no_memory(k, v) if initial_state is None else initial_state
    g = forget_between_segments(g.to(held), segments)

    def mix(rows: Sequence[Tensor], _: Factors | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v, g = rows
        out, state = _Chunks.apply(q, k, v, g.squeeze(-1), state)  # type: ignore[no-untyped-call]
        return out, state

    rows = q, silence(k, segments), v, g.unsqueeze(-1)
    out, state = in_blocks(mix, rows, state, size=size, segments=None, dtype=held)
    return silence(out.to(v.dtype), segments), state


def decayed_linear_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    g: Float[Tensor, "batch time heads"],
    *,
    initial_state: Float[Tensor, "batch heads dim out"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Float[Tensor, "batch heads dim out"]]:
    """Read a sum of outer products that is multiplied by exp(g) before each is added; returns outputs and last sum.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> half = torch.full((1, 3, 1), 0.5).log()
    >>> [round(x, 6) for x in decayed_linear_attention(one, one, one, half)[0].flatten().tolist()]
    [1.0, 1.5, 1.75]
    """
    out, state = dispatch.run(OP, q, k, v, g, keys=q.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    return q, k, v, -torch.rand(batch, time, heads, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="decayed-linear-attention",
    paths={"reference": decayed_linear_attention_reference, "chunked": decayed_linear_attention_chunked},
    call=decayed_linear_attention,
    sample=_sample,
)
