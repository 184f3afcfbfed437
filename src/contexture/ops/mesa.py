"""Least squares in context: the mesa layer's mathematics (von Oswald et al., arXiv:2309.05858; arXiv:2506.05233).

    H_t = H_{t-1} + k_t k_t',    G_t = G_{t-1} + k_t v_t',    o_t = G_t' (H_t + R)^-1 q_t

so o_t is what ridge regression of the values on the keys, with penalties R = diag(ridge), predicts for q_t. Exactly,
and for all prefixes of a chunk at once: with rows Q, K, V, with H and G before the chunk, H + R = L L', and queries
and keys whitened by L,

    Q^ = Q L'^-1,    K^ = K L'^-1,    C C' = I + K^ K^',    Y = C^-1 K^
    X = (Q^ - tril(Q^ Y') Y) L^-1,    O = X G + tril(X K') V

for the leading blocks of C are the Cholesky factors that belong to the prefixes (Woodbury's identity), so that row t of
X is (H_t + R)^-1 q_t. H is summed and factored anew for every chunk; its inverse, which the recursion of Sherman and
Morrison would carry, loses digits as the context grows. A decay of H that spares R would change (H_t + R) by more than
one rank at a time, and none of this would hold: there is no such gate here.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; ridge > 0: [members, heads, dim], where members
divides the batch; H: [batch, heads, dim, dim] and G: [batch, heads, dim, out], in fp32 at least. A change of segment
sets both to zero.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import Masks, chunk_size, join, masks, no_memory, silence, split, wide
from contexture.ops.segments import runs

CHUNK = 64


class Moments(NamedTuple):
    """H, the sum of k k', and G, the sum of k v'."""

    keys: Tensor
    products: Tensor


def _start(k: Tensor, v: Tensor) -> Moments:
    return Moments(no_memory(k, k), no_memory(k, v))


def _penalties(ridge: Tensor, batch: int, dtype: torch.dtype) -> Float[Tensor, "batch heads dim"]:
    return ridge.to(dtype).repeat_interleave(batch // len(ridge), 0)


def mesa_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    *,
    initial_state: Moments | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """The definition, one solve after another."""
    keys, products = _start(k, v) if initial_state is None else initial_state
    outputs, dtype = [], v.dtype
    stretch = None if segments is None else runs(segments)
    q, k, v = (x.to(keys.dtype) for x in (q, silence(k, segments), v))
    penalties = torch.diag_embed(_penalties(ridge, len(q), keys.dtype))
    for t in range(q.shape[1]):
        if stretch is not None and t > 0:
            kept = (stretch[:, t] == stretch[:, t - 1]).to(keys.dtype).view(-1, 1, 1, 1)
            keys, products = keys * kept, products * kept
        keys = keys + torch.einsum("bhd,bhe->bhde", k[:, t], k[:, t])
        products = products + torch.einsum("bhd,bhe->bhde", k[:, t], v[:, t])
        weights = torch.linalg.solve(keys + penalties, products)
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], weights))
    return silence(torch.stack(outputs, 1), segments).to(dtype), Moments(keys, products)


def _sums(first: Moments, keys: Tensor, values: Tensor, mask: Masks | None) -> tuple[Moments, Moments]:
    """The moments before every chunk, [batch, heads, chunks, ..], and the last."""
    written = keys if mask is None else keys * mask.writes
    added = (written.mT @ torch.cat((keys, values), -1)).unbind(2)
    kept = None if mask is None else mask.keeps.unbind(2)
    state, states = torch.cat(first, -1), []
    for n, one in enumerate(added):
        states.append(state)
        state = one + (state if kept is None else state * kept[n])
    sizes = [keys.shape[-1], values.shape[-1]]
    return Moments(*torch.split(torch.stack(states, 2), sizes, -1)), Moments(*torch.split(state, sizes, -1))


def _within(scores: Tensor, mask: Masks | None) -> Tensor:
    return scores if mask is None else scores * mask.within


def mesa_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    *,
    initial_state: Moments | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """Two Cholesky factors for every chunk, and products.

    Where a chunk holds the start of a segment, the rows after it are whitened by the penalties alone.
    """
    time, held = q.shape[1], wide(v.dtype)
    size = chunk_size(time, CHUNK)
    queries, keys, values = (split(x.to(held), size) for x in (q, silence(k, segments), v))
    mask = None if segments is None else masks(segments, size, held)
    before, last = _sums(_start(k, v) if initial_state is None else initial_state, keys, values, mask)
    penalties = _penalties(ridge, len(q), held)
    eye = torch.eye(k.shape[-1], dtype=held, device=k.device)
    factor = torch.linalg.cholesky_ex(before.keys + torch.diag_embed(penalties).unsqueeze(2))[0]
    whitener = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
    rows = torch.cat((queries, keys), -2)
    white, reads, plain = rows @ whitener.mT, None, None
    if mask is not None:
        reads, plain = mask.reads, penalties.rsqrt()[:, :, None, None]
        white = torch.where(torch.cat((reads, reads), -2) > 0, white, rows * plain)
    white_queries, white_keys = torch.split(white, size, -2)
    overlaps = _within(white_keys @ white_keys.mT, mask)
    inner = torch.linalg.cholesky_ex(overlaps + torch.eye(size, dtype=held, device=k.device))[0]
    steps = torch.linalg.solve_triangular(inner, white_keys, upper=False)
    white = white_queries - _within((white_queries @ steps.mT).tril(), mask) @ steps
    solved = white @ whitener
    if reads is None or plain is None:
        out = solved @ before.products
    else:
        out = (solved * reads) @ before.products
        solved = torch.where(reads > 0, solved, white * plain)
    out = out + _within((solved @ keys.mT).tril(), mask) @ values
    return silence(join(out, time).to(v.dtype), segments), last


def mesa(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    ridge: Float[Tensor, "members heads dim"],
    *,
    initial_state: Moments | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Moments]:
    """Predict every query by ridge regression on the keys and values so far; returns predictions and last moments.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> [round(y, 4) for y in mesa(one, one, one, torch.ones(1, 1, 1))[0].flatten().tolist()]
    [0.5, 0.6667, 0.75]
    """
    out, state = dispatch.run(OP, q, k, v, ridge, keys=q.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    ridge = 0.5 + torch.rand(1, heads, dim, generator=generator, dtype=torch.float64)
    return q, k / k.norm(dim=-1, keepdim=True), v, ridge


OP = dispatch.Op(name="mesa", paths={"reference": mesa_reference, "chunked": mesa_chunked}, call=mesa, sample=_sample)
