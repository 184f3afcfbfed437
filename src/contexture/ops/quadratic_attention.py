"""Causal attention whose weights are a quadratic polynomial of the products of queries and keys, without normaliser.

    o_t = sum_{s <= t} p(q_t.k_s) v_s,    p(z) = c_0 + c_1 z + c_2 z^2

As a linear attention: p(q.k) = f(q).f(k) with f(x) = [sqrt(c_0), sqrt(c_1) x, sqrt(c_2) (x_i x_j for all pairs)],

    S_t = S_{t-1} + f(k_t) v_t',    o_t = S_t' f(q_t)

and over a chunk with rows Q, K, V:  O = f(Q) S + tril(p(Q K')) V,  S <- S + f(K)' V: inside a chunk the polynomial is
taken of the products themselves, which cost dim and not dim^2. A pair of different factors counts once, with a weight
of sqrt(2): x_i x_{i + r}, indices modulo dim, for r = 0 .. dim / 2 (twice at r = dim / 2 where dim is even, so halved).

With (c_0, c_1, c_2) = (1, 1, 1/2) these are the weights of Based (Arora et al., 2024, arXiv:2402.18668), with (0, 0, 1)
those of ReBased (Aksenov et al., 2024, arXiv:2402.10644).

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; S: [batch, heads, features, out]. All is computed in
fp32 at least. A change of segment sets S to zero.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunk_blocks import Factors, in_blocks, scaled
from contexture.ops.chunks import add_product, chunk_size, silence, wide
from contexture.ops.linear_attention import linear_attention_reference

CHUNK = 64
TAYLOR = (1.0, 1.0, 0.5)
"""The exponential's first terms."""


def num_features(dim: int, coefficients: tuple[float, float, float] = TAYLOR) -> int:
    """How many features stand for the polynomial: those of a coefficient of zero are left out.

    >>> num_features(16)
    161
    """
    return sum(size for size, c in zip((1, dim, dim * (dim // 2 + 1)), coefficients, strict=True) if c)


def quadratic_features(
    x: Float[Tensor, "*lead dim"], coefficients: tuple[float, float, float] = TAYLOR
) -> Float[Tensor, "*lead features"]:
    """What stands for the polynomial: f(x).f(y) = p(x.y).

    >>> x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
    >>> round(float(quadratic_features(x) @ quadratic_features(y)), 4)
    2.5
    """
    dim, parts = x.shape[-1], []
    constant, slope, curvature = coefficients
    if constant:
        parts.append(torch.full_like(x[..., :1], math.sqrt(constant)))
    if slope:
        parts.append(x if slope == 1 else x * math.sqrt(slope))
    if curvature:
        weights = torch.full((dim // 2 + 1, 1), math.sqrt(2 * curvature), dtype=x.dtype, device=x.device)
        weights[0] = math.sqrt(curvature)
        if dim % 2 == 0:
            weights[-1] = math.sqrt(curvature)
        turned = torch.cat((x, x[..., : dim // 2]), -1).unfold(-1, dim, 1)
        parts.append((turned * (x.unsqueeze(-2) * weights)).flatten(-2))
    return torch.cat(parts, -1)


def quadratic_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    coefficients: tuple[float, float, float],
    initial_state: Tensor | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition: linear attention over the features, one step after another."""
    held = wide(v.dtype)
    q, k = (quadratic_features(x.to(held), coefficients) for x in (q, k))
    out, state = linear_attention_reference(q, k, v.to(held), initial_state=initial_state, segments=segments)
    return out.to(v.dtype), state


def quadratic_attention_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    coefficients: tuple[float, float, float],
    initial_state: Tensor | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The polynomial inside chunks, features and running sums between them."""
    constant, slope, curvature = coefficients

    def mix(rows: Sequence[Tensor], masks: Factors | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        queries, keys, values = rows
        within, reads, writes, keeps = masks or (None,) * 4
        products = queries @ keys.mT
        scores = torch.addcmul(constant + slope * products, products, products, value=curvature).tril_()
        scores, written = scaled(scores, within), scaled(quadratic_features(keys, coefficients), writes)
        sums, states = (written.mT @ values).unbind(), []
        if state is None and len(sums) == 1:
            return scores @ values, sums[0]
        state = torch.zeros_like(sums[0]) if state is None else state
        for n, added in enumerate(sums):
            states.append(state)
            state = added + scaled(state, None if keeps is None else keeps[n])
        read = scaled(quadratic_features(queries, coefficients), reads)
        return add_product(read @ torch.stack(states), scores, values), state

    rows, size = (q, k, silence(v, segments)), chunk_size(q.shape[1], CHUNK)
    out, state = in_blocks(mix, rows, initial_state, size=size, segments=segments, dtype=wide(v.dtype))
    return silence(out.to(v.dtype), segments), state


def quadratic_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    *,
    coefficients: tuple[float, float, float] = TAYLOR,
    initial_state: Float[Tensor, "batch heads features out"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Float[Tensor, "batch heads features out"]]:
    """Sum values weighted by a polynomial of q.k; returns the outputs and the last sum over features.

    No coefficient may be negative.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> quadratic_attention(one, one, one)[0].flatten().tolist()
    [2.5, 5.0, 7.5]
    """
    out, state = dispatch.run(
        OP, q, k, v, keys=q.shape[1], coefficients=coefficients, initial_state=initial_state, segments=segments
    )
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))


OP = dispatch.Op(
    name="quadratic-attention",
    paths={"reference": quadratic_attention_reference, "chunked": quadratic_attention_chunked},
    call=quadratic_attention,
    sample=_sample,
)
