"""Causal linear attention (Katharopoulos et al., 2020, arXiv:2006.16236), without feature map or normaliser.

    S_t = S_{t-1} + k_t v_t',    o_t = S_t' q_t

and over a chunk with rows Q, K, V:  O = Q S + tril(Q K') V,  S <- S + K' V.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; S: [batch, heads, dim, out], in fp32 at least.
A change of segment sets S to zero.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import add_product, chunk_size, join, masks, no_memory, silence, split, wide
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


def linear_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Products inside chunks, a running sum of [dim, out] states between them."""
    time, dtype = q.shape[1], v.dtype
    size = chunk_size(time, CHUNK)
    queries, keys, values = split(q, size), split(silence(k, segments), size), split(v, size)
    scores = (queries @ keys.mT).tril_()
    written, kept = keys, None
    if segments is not None:
        mask = masks(segments, size, dtype)
        scores, written = scores * mask.within, keys * mask.writes
        queries, kept = queries * mask.reads, mask.keeps.to(wide(dtype)).unbind(2)
    sums = (written.mT @ values).unbind(2)
    if initial_state is None and len(sums) == 1:
        return silence(join(scores @ values, time), segments), sums[0].to(wide(dtype))
    state, states = no_memory(k, v) if initial_state is None else initial_state, []
    for n, added in enumerate(sums):
        states.append(state)
        state = added + (state if kept is None else state * kept[n])
    out = add_product(queries @ torch.stack(states, 2).to(dtype), scores, values)
    return silence(join(out, time), segments), state


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
