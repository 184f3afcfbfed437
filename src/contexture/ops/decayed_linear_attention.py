"""Linear attention whose memory decays by one factor per head and step (retention, Mamba-2, mLSTM and their kin).

    S_t = exp(g_t) S_{t-1} + k_t v_t',    o_t = S_t' q_t

(RetNet, Sun et al., arXiv:2307.08621, with g constant; Mamba-2, Dao & Gu, arXiv:2405.21060, with g from the input.)
Over a chunk with rows Q, K, V, let D_ij be the decay from j to i, c_i that from the chunk's start to i and e_j that
from j to its end:

    O = c Q S + (Q K' * D) V,    S <- c_last S + (e K)' V.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; g: [batch, time, heads], at most zero, -inf allowed;
S: [batch, heads, dim, out], in fp32 at least as are all decays. A change of segment sets S to zero.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import add_product, chunk_size, join, no_memory, silence, split, wide
from contexture.ops.decays import decayed_products, forget_between_segments
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


class _Chunks(torch.autograd.Function):
    """The chunked form with its gradient written out.

    q, k: [batch, heads, chunks, size, dim]; v: the same with out; g: [batch, heads, chunks, size, 1].
    Scaling S_t by one number scales what is read from t on and not what is written from t on, so the gradient of g_t is
    the sum of q.dq - k.dk from t to the chunk's end, and <S, dS> there.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        one = g.new_ones(()).expand(g.flatten(0, 2).shape)
        decays = decayed_products(one, one, g.flatten(0, 2).exp())
        within, reads, writes = (x.unflatten(0, g.shape[:3]).to(v.dtype) for x in decays[:3])
        total = decays.total.view(*g.shape[:3], 1, 1)
        scores = (q @ k.mT).mul_(within)
        read, written = q * reads, k * writes
        states = []
        for added, kept in zip((written.mT @ v).unbind(2), total.unbind(2), strict=True):
            states.append(state)
            state = torch.addcmul(added.to(state.dtype), state, kept)
        held = torch.stack((*states, state), 2)
        out = add_product(read @ held[:, :, :-1].to(v.dtype), scores, v)
        ctx.save_for_backward(q, k, v, within, reads, writes, total, scores, held)
        return out, state

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        d_out, d_state = gradients
        q, k, v, within, reads, writes, total, scores, held = ctx.saved_tensors
        ends = []
        asked = ((q * reads).mT @ d_out).unbind(2)
        for added, kept in zip(reversed(asked), reversed(total.unbind(2)), strict=True):
            ends.append(d_state)
            d_state = torch.addcmul(added.to(d_state.dtype), d_state, kept)
        d_ends = torch.stack(ends[::-1], 2)
        d_held = d_ends.to(v.dtype)
        starts = held[:, :, :-1]
        d_scores = (d_out @ v.mT).mul_(within)
        d_read = (d_out @ starts.to(v.dtype).mT).mul_(reads)
        d_written = (v @ d_held.mT).mul_(writes)
        d_v = add_product((k * writes) @ d_held, scores.mT, d_out)
        through = d_scores * (q @ k.mT)
        moved = through.sum(-1, dtype=total.dtype) - through.sum(-2, dtype=total.dtype)
        moved += torch.linalg.vecdot(q, d_read)
        passed = torch.linalg.vecdot(k, d_written).to(total.dtype)
        kept = torch.linalg.vecdot(starts.flatten(3), d_ends.flatten(3)) * total[..., 0, 0]
        later = moved.flip(-1).cumsum(-1).flip(-1) + passed.cumsum(-1) - passed + kept.unsqueeze(-1)
        d_q, d_k = add_product(d_read, d_scores, k), add_product(d_written, d_scores.mT, q)
        return d_q, d_k, d_v, later.unsqueeze(-1), d_state


def decayed_linear_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Products inside chunks, a running sum of [dim, out] states between them; a segment's start is a decay of zero."""
    time, size = q.shape[1], chunk_size(q.shape[1], CHUNK)
    state = no_memory(k, v) if initial_state is None else initial_state
    decays = forget_between_segments(g.to(wide(v.dtype)), segments).unsqueeze(-1)
    parts = (split(x, size) for x in (q, silence(k, segments), v, decays))
    out, state = _Chunks.apply(*parts, state)  # type: ignore[no-untyped-call]
    return silence(join(out, time), segments), state


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
