"""The running average under exponentials of keys with a bias for every pair of positions (AFT-full; Zhai et al., 2021,
arXiv:2105.14103).

    y_t = sum_{s <= t} exp(k_s + w_ts) v_s / sum_{s <= t} exp(k_s + w_ts),    w_ts = a_t.b_s

Over a chunk of queries, the pairs inside it are summed one by one; the past S before it is two matrix products,

    exp(w - max w) [exp(k - M) v, exp(k - M)],    M = the past's largest key,

and the two are merged. Keys of any size are safe; a past whose biases spread over more than about 80 (in fp32) may
round to no weight at all.

k, v, y: [batch, time, heads, dim]; a, b: [rows, time, rank], where the batch is rows times as large as that of one row,
rows outermost. The state is all keys, values and b so far, [batch, past, ...]. A change of segment hides the past.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import chunk_size, silence, wide
from contexture.ops.exponential_average import EMPTY, LogAverage, average, merge
from contexture.ops.softmax_attention import visible

CHUNK = 32


class Past(NamedTuple):
    """The keys and values of earlier tokens, [batch, past, heads, dim], and their b, [batch, past, rank]."""

    keys: Tensor
    values: Tensor
    biases: Tensor


def _grouped(x: Tensor, rows: int) -> Tensor:
    """[rows * batch, time, channels] as [rows, time, batch * channels]."""
    return torch.unflatten(x, 0, (rows, -1)).transpose(1, 2).flatten(2)


def _ungrouped(x: Tensor, batch: int) -> Tensor:
    """Undo `_grouped`."""
    return torch.unflatten(x, 2, (batch, -1)).transpose(1, 2).flatten(0, 1)


def biased_average_reference(
    k: Tensor, v: Tensor, left: Tensor, right: Tensor, *, segments: Tensor | None = None
) -> Tensor:
    """The definition, one query after another."""
    dtype, held, batch = v.dtype, wide(v.dtype), k.shape[0]
    k, v, left, right = (x.to(held) for x in (k, v, left, right))
    left, right = (x.repeat_interleave(batch // x.shape[0], 0) for x in (left, right))
    past, outputs = k.shape[1] - left.shape[1], []
    seen = visible(left.shape[1], k.shape[1], segments, device=k.device)[:, 0]
    for t in range(left.shape[1]):
        stop = past + t + 1
        bias = torch.einsum("br,bsr->bs", left[:, t], right[:, :stop]).masked_fill(~seen[:, t, :stop], EMPTY)
        outputs.append(average(k[:, :stop] + bias[..., None, None], v[:, :stop], over=1).average)
    return silence(torch.stack(outputs, 1), segments).to(dtype)


def biased_average_chunked(
    k: Tensor, v: Tensor, left: Tensor, right: Tensor, *, segments: Tensor | None = None
) -> Tensor:
    """Pairs inside chunks of queries, products with all that came before them."""
    time, (batch, keys, heads, dim), dtype = left.shape[1], k.shape, v.dtype
    k, v, left, right = (x.to(wide(dtype)) for x in (k, v, left, right))
    past, size = keys - time, chunk_size(time, CHUNK)
    seen = visible(time, keys, segments, device=k.device)[:, 0]
    if segments is not None:
        left, right = (x.repeat_interleave(batch // x.shape[0], 0) for x in (left, right))
    bias = (left @ right.mT).masked_fill(~seen, EMPTY)
    k, v = k.flatten(2), v.flatten(2)
    top = k.cummax(1).values.detach()
    own = zip(k[:, past:].split(size, 1), v[:, past:].split(size, 1), bias.split(size, 1), strict=True)
    outputs = []
    for n, (keys_, values, table) in enumerate(own):
        before = past + n * size
        rows = table[..., before : before + keys_.shape[1]].repeat_interleave(batch // bias.shape[0], 0)
        inside = average(keys_.unsqueeze(1) + rows.unsqueeze(-1), values.unsqueeze(1), over=2)
        if before:
            earlier = _past(k[:, :before], v[:, :before], table[..., :before], top[:, before - 1 : before])
            inside = merge(inside, earlier)
        outputs.append(inside.average)
    return silence(torch.unflatten(torch.cat(outputs, 1), 2, (heads, dim)), segments).to(dtype)


def _past(k: Tensor, v: Tensor, bias: Tensor, top: Tensor) -> LogAverage:
    """What a chunk of queries finds in the past; k, v: [batch, past, channels]; bias: [rows, queries, past]."""
    weights = (k - top).exp()
    peak = bias.amax(2, keepdim=True).detach()
    sums = (bias - peak).exp() @ _grouped(torch.cat((weights * v, weights), 2), bias.shape[0])
    summed, weight = _ungrouped(sums, k.shape[0] // bias.shape[0]).chunk(2, -1)
    weight = weight.clamp(min=torch.finfo(weight.dtype).tiny)
    offset = peak.repeat_interleave(k.shape[0] // bias.shape[0], 0)
    return LogAverage(top + offset + weight.log(), summed / weight)


def biased_average(
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads dim"],
    left: Float[Tensor, "rows time rank"],
    right: Float[Tensor, "rows time rank"],
    *,
    initial_state: Past | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads dim"], Past]:
    """Average all values so far under the exponentials of their keys and the pair's bias left_t.right_s.

    >>> v = torch.tensor([1.0, 3.0, 5.0]).view(1, 3, 1, 1)
    >>> left, right = torch.ones(1, 3, 1), torch.tensor([3.0, 1.0, 4.0]).log().view(1, 3, 1)
    >>> biased_average(torch.zeros_like(v), v, left, right)[0].flatten()
    tensor([1.0000, 1.5000, 3.2500])
    """
    held = right.repeat_interleave(k.shape[0] // right.shape[0], 0)
    if initial_state is not None:
        both = zip(initial_state, (k, v, held), strict=True)
        k, v, held = (torch.cat((before.to(x.dtype), x), 1) for before, x in both)
        left, right = left.repeat_interleave(k.shape[0] // left.shape[0], 0), held
    out = dispatch.run(OP, k, v, left, right, keys=k.shape[1], segments=segments)
    return out, Past(k, v, held)


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    left, right = (torch.randn(batch, time, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return 3 * k, v, left, right


OP = dispatch.Op(
    name="biased-average",
    paths={"reference": biased_average_reference, "chunked": biased_average_chunked},
    call=biased_average,
    sample=_sample,
)
