"""Causal linear attention over several memories, of which every token writes and reads a few (SSE; Pan et al., 2025,
arXiv:2507.16577).

    C_t = the num_routes partitions with the largest shares r_t
    S^n_t = S^n_{t-1} + r_tn k_t v_t'  if n is in C_t, else S^n_{t-1};    o_t = sum_{n in C_t} r_tn S^n_t' q_t

In chunks: tokens are brought together by partition, in the order of time within each, every partition beginning at a
chunk's edge. What follows is linear attention, cut where a partition ends, over time * num_routes + partitions * size
tokens at most: the work does not grow with the number of partitions, but the memory does.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; r: [batch, time, partitions], not negative, shared by
all heads; S: [batch, partitions, heads, dim, out], in fp32 at least. A change of segment sets every S to zero.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import add_product, join, silence, split, wide
from contexture.ops.linear_attention import linear_attention_chunked
from contexture.ops.routing import Places, places, routes, take
from contexture.ops.segments import runs as runs_of

CHUNK = 64


def routed_linear_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shares: Tensor,
    *,
    num_routes: int,
    initial_state: Tensor,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    state, outputs, dtype = initial_state, [], v.dtype
    stretch = None if segments is None else runs_of(segments)
    kept = _dense(shares, num_routes)
    q, k, v, kept = (x.to(state.dtype) for x in (q, silence(k, segments), v, kept))
    for t in range(q.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1, 1, 1)
        state = state + torch.einsum("bn,bhd,bhe->bnhde", kept[:, t], k[:, t], v[:, t])
        outputs.append(torch.einsum("bn,bhd,bnhde->bhe", kept[:, t], q[:, t], state))
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


def routed_linear_attention_dense(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shares: Tensor,
    *,
    num_routes: int,
    initial_state: Tensor,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Linear attention over dim * partitions features, most of them zero: the work grows with the partitions."""
    kept = _dense(shares, num_routes)[:, :, None, :, None]
    read, written = ((x.unsqueeze(-2) * kept).flatten(-2) for x in (q, k))
    state = initial_state.transpose(1, 2).flatten(2, 3)
    out, state = linear_attention_chunked(read, written, v, initial_state=state, segments=segments)
    return out, torch.unflatten(state, 2, (shares.shape[-1], -1)).transpose(1, 2)


def routed_linear_attention_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    shares: Tensor,
    *,
    num_routes: int,
    initial_state: Tensor,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Linear attention over tokens that are brought together by partition."""
    time, dim, partitions, held = q.shape[1], q.shape[3], shares.shape[-1], initial_state.dtype
    size = min(CHUNK, -(-time * num_routes // partitions))
    put = places(*routes(shares, num_routes), partitions, size)
    rows = torch.cat((q, silence(k, segments), v), -1)
    rows = take(rows, put.tokens)
    queries, keys, values = (split(part, size) for part in torch.split(rows, [dim, dim, v.shape[-1]], dim=-1))
    weights = torch.unflatten(put.weights.to(v.dtype), 1, (-1, size))[:, None, :, :, None]
    queries, keys = queries * weights, keys * weights
    scores, written = (queries @ keys.mT).tril_(), keys
    kept, current = torch.ones_like(put.begins), None
    if segments is not None:
        stretch = runs_of(segments)
        here = stretch.gather(1, put.tokens).masked_fill(~put.filled, -1)
        here = torch.unflatten(here, 1, (-1, size))
        last = here.amax(-1, keepdim=True)
        before = F.pad(last[:, :-1], (0, 0, 1, 0)).masked_fill(put.begins.unsqueeze(-1), 0)
        scores = scores * (here.unsqueeze(-1) == here.unsqueeze(-2)).unsqueeze(1).to(v.dtype)
        queries = queries * (here == before)[:, None, :, :, None].to(v.dtype)
        written = keys * (here == last)[:, None, :, :, None].to(v.dtype)
        kept, current = (last == before).squeeze(-1), (last.squeeze(-1), stretch[:, -1:])
    starts, afters = _states((written.mT @ values).to(held), initial_state, put, kept)
    out = join(add_product(queries @ starts.to(v.dtype), scores, values), put.tokens.shape[1])
    out = torch.unflatten(take(out, put.slots), 1, (time, num_routes)).sum(2)
    return silence(out, segments), _last(afters, initial_state, put, current)


def _states(sums: Tensor, initial: Tensor, put: Places, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The memory before and after every chunk, [batch, heads, chunks, dim, out]."""
    begun = take(initial, put.partitions).transpose(1, 2)
    state, starts, afters = torch.zeros_like(sums[:, :, 0]), [], []
    fresh = put.begins[:, None, :, None, None]
    held = kept[:, None, :, None, None].to(sums.dtype)
    for begin, first, keep, added in zip(begun.unbind(2), fresh.unbind(2), held.unbind(2), sums.unbind(2), strict=True):
        starts.append(torch.where(first, begin, state))
        state = torch.addcmul(added, starts[-1], keep)
        afters.append(state)
    return torch.stack(starts, 2), torch.stack(afters, 2)


def _last(afters: Tensor, initial: Tensor, put: Places, current: tuple[Tensor, Tensor] | None) -> Tensor:
    """Every partition's memory after the last token: nothing, where the last segment never wrote it."""
    ends, untouched = put.ends.clamp(min=0), put.ends < 0
    states = take(afters.transpose(1, 2), ends)
    if current is not None:
        last, now = current
        states = states * (last.gather(1, ends) == now).to(states.dtype)[..., None, None, None]
        initial = initial * (now == 0).to(states.dtype)[..., None, None, None]
    return torch.where(untouched[..., None, None, None], initial, states)


def _dense(shares: Tensor, num_routes: int) -> Tensor:
    """The shares with all but the largest set to zero."""
    values, order = routes(shares, num_routes)
    return torch.zeros_like(shares).scatter(-1, order, values)


def routed_linear_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    shares: Float[Tensor, "batch time partitions"],
    *,
    num_routes: int = 1,
    initial_state: Float[Tensor, "batch partitions heads dim out"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Float[Tensor, "batch partitions heads dim out"]]:
    """Write and read the memories with the largest shares alone; returns the outputs and all memories.

    >>> one, shares = torch.ones(1, 3, 1, 1), torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    >>> routed_linear_attention(one, one, one, shares)[0].flatten().tolist()
    [1.0, 1.0, 2.0]
    """
    if initial_state is None:
        shape = (q.shape[0], shares.shape[-1], *q.shape[2:], v.shape[-1])
        initial_state = torch.zeros(shape, dtype=wide(v.dtype), device=v.device)
    out, state = dispatch.run(
        OP,
        q,
        k,
        v,
        shares,
        keys=q.shape[1],
        num_routes=num_routes,
        initial_state=initial_state,
        segments=segments,
    )
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    return q, k, v, torch.rand(batch, time, 3, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="routed-linear-attention",
    paths={
        "reference": routed_linear_attention_reference,
        "chunked": routed_linear_attention_chunked,
        "dense": routed_linear_attention_dense,
    },
    call=routed_linear_attention,
    sample=_sample,
)
