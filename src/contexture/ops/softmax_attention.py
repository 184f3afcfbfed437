"""Causal softmax attention (Vaswani et al., 2017, arXiv:1706.03762).

    o_t = sum_{s <= t} p_ts v_s,    p_ts = exp(scale q_t.k_s - slope (t - s)) / the sum of these over s <= t

q, o: [batch, time, heads, dim or out]; k, v: [batch, time, kv_heads, dim or out], where each head of keys and values
serves heads / kv_heads neighbouring queries (Ainslie et al., 2023, arXiv:2305.13245); slope: [heads], linear biases
(Press et al., 2021, arXiv:2108.12409) or none. The state is what has been seen: the keys and values of all earlier
tokens, [batch, past, kv_heads, ...]. A change of segment hides everything before it.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import silence, wide
from contexture.ops.segments import runs

QUERIES = 256
"""How many queries share a table of linear biases: it stays in the cache, and leaves later keys out."""


class KeysValues(NamedTuple):
    """The keys [batch, past, kv_heads, dim] and values [batch, past, kv_heads, out] of earlier tokens."""

    keys: Tensor
    values: Tensor


def visible(
    num_queries: int, num_keys: int, segments: Int[Tensor, "batch time"] | None, *, device: torch.device
) -> Bool[Tensor, "rows 1 queries keys"]:
    """Which keys a query sees: none after it, none of another stretch; padding sees itself, so that its row is finite.

    The queries are the last of the keys; earlier keys belong to the first stretch.
    """
    mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)
    mask = mask.view(1, 1, num_queries, num_keys)
    if segments is None:
        return mask
    own = runs(segments)
    keys = F.pad(own, (num_keys - num_queries, 0))
    return mask & (own[:, None, :, None] == keys[:, None, None, :])


def biases(
    slopes: Float[Tensor, " heads"], num_queries: int, num_keys: int, *, dtype: torch.dtype
) -> Float[Tensor, "heads queries keys"]:
    """-slope times the distance of every key, where the queries are the last of the keys."""
    keys = torch.arange(num_keys, device=slopes.device)
    distance = keys[num_keys - num_queries :, None] - keys
    return -slopes.to(dtype)[:, None, None] * distance.to(dtype)


def _for_every_query(x: Float[Tensor, "batch past kv_heads dim"], heads: int) -> Float[Tensor, "batch past heads dim"]:
    """Keys or values repeated for all the heads that they serve."""
    return x if x.shape[2] == heads else x.repeat_interleave(heads // x.shape[2], 2)


def softmax_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, slopes: Tensor | None = None, segments: Tensor | None = None
) -> Tensor:
    """The definition, one query after another, in fp32 (fp64 for fp64 inputs)."""
    dtype = v.dtype
    q, k, v = (_for_every_query(x.to(wide(dtype)), q.shape[2]) for x in (q, k, v))
    slope = q.new_zeros(q.shape[2]) if slopes is None else slopes.to(q.dtype)
    past = k.shape[1] - q.shape[1]
    mask = visible(q.shape[1], k.shape[1], segments, device=q.device)[:, 0]
    outputs = []
    for t in range(q.shape[1]):
        seen = past + t + 1
        distance = torch.arange(seen - 1, -1, -1, device=q.device).to(q.dtype)
        scores = scale * torch.einsum("bhd,bshd->bhs", q[:, t], k[:, :seen]) - slope[:, None] * distance
        weights = scores.masked_fill(~mask[:, t, None, :seen], -math.inf).softmax(-1)
        outputs.append(torch.einsum("bhs,bshe->bhe", weights, v[:, :seen]))
    return silence(torch.stack(outputs, 1), segments).to(dtype)


def softmax_attention_products(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, slopes: Tensor | None = None, segments: Tensor | None = None
) -> Tensor:
    """The whole [queries, keys] table by batched products; torch's softmax sums in fp32 whatever the dtype."""
    batch, time, heads, _ = q.shape
    k, v = _for_every_query(k, heads), _for_every_query(v, heads)
    hidden = ~visible(time, k.shape[1], segments, device=q.device)
    bias = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill(hidden, -math.inf)
    if slopes is not None:
        bias = (bias + biases(slopes, time, k.shape[1], dtype=q.dtype)).expand(batch, -1, -1, -1).flatten(0, 1)
    else:
        bias = bias.squeeze(1) if segments is None else bias.expand(-1, heads, -1, -1).flatten(0, 1)
    queries, values = q.transpose(1, 2).flatten(0, 1), v.transpose(1, 2).flatten(0, 1)
    keys = k.permute(0, 2, 3, 1).flatten(0, 1)
    scores = torch.baddbmm(bias, queries, keys, alpha=scale)
    out = torch.bmm(torch.softmax(scores, -1), values).view(batch, heads, time, -1).transpose(1, 2)
    return silence(out, segments)


def softmax_attention_sdpa(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, slopes: Tensor | None = None, segments: Tensor | None = None
) -> Tensor:
    """torch's fused attention."""
    k, v = _for_every_query(k, q.shape[2]), _for_every_query(v, q.shape[2])
    if slopes is not None and segments is None and q.shape[1] > QUERIES:
        return _few_queries_at_a_time(q, k, v, scale=scale, slopes=slopes)
    whole = segments is None and slopes is None and q.shape[1] == k.shape[1]
    needs_mask = not whole and (segments is not None or q.shape[1] > 1)
    mask = visible(q.shape[1], k.shape[1], segments, device=q.device) if needs_mask else None
    if slopes is not None:
        bias = biases(slopes, q.shape[1], k.shape[1], dtype=q.dtype)
        mask = bias if mask is None else bias.where(mask, -math.inf)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=whole, scale=scale
    )
    return silence(out.transpose(1, 2), segments)


def _few_queries_at_a_time(q: Tensor, k: Tensor, v: Tensor, *, scale: float, slopes: Tensor) -> Tensor:
    """Linear biases take a mask, and with a mask torch scores later keys too: half of them are left out here."""
    outputs, stop = [], k.shape[1] - q.shape[1]
    for some in torch.split(q, QUERIES, 1):
        stop += some.shape[1]
        outputs.append(softmax_attention_sdpa(some, k[:, :stop], v[:, :stop], scale=scale, slopes=slopes))
    return torch.cat(outputs, 1)


def softmax_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time kv_heads dim"],
    v: Float[Tensor, "batch time kv_heads out"],
    *,
    scale: float | None = None,
    slopes: Float[Tensor, " heads"] | None = None,
    initial_state: KeysValues | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], KeysValues]:
    """Attend to everything up to each position; returns the outputs and the grown state.

    `scale` is 1/sqrt(dim) unless given; `slopes` are those of linear biases. Earlier keys in `initial_state` belong to
    the first segment.
    """
    if initial_state is not None and initial_state.keys.shape[1]:
        k, v = torch.cat((initial_state.keys, k), 1), torch.cat((initial_state.values, v), 1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = dispatch.run(OP, q, k, v, keys=k.shape[1], scale=scale, slopes=slopes, segments=segments)
    return out, KeysValues(k, v)


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))


OP = dispatch.Op(
    name="softmax-attention",
    paths={
        "reference": softmax_attention_reference,
        "products": softmax_attention_products,
        "sdpa": softmax_attention_sdpa,
    },
    call=softmax_attention,
    sample=_sample,
)
