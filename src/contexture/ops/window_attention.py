"""Causal softmax attention to a window of the last tokens, and to the first ones beside it.

Sliding window (Beltagy et al., 2020, arXiv:2004.05150), attention sinks (Xiao et al., 2023, arXiv:2309.17453) and
linear biases (Press et al., 2021, arXiv:2108.12409): with d = t - s the distance of a key,

    o_t = sum_s p_ts v_s,    p_t = softmax over  { t - window < s <= t }  and  { s < num_sinks, s <= t - window }
    score of a key in the window: scale q_t.k_s - slope d;  of a sink: scale r_t.k_s - slope (min(t, reach) - s)

where reach = num_sinks + window - 1, so that a sink never seems farther away than it lies in what is kept. For the same
reason sinks have queries r of their own: where positions are rotary, r is q turned by min(t, reach) instead of t.

q, k, r: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; slope: [heads]. Positions count from the start of
each segment. Queries are cut into chunks; a chunk reads its own tokens and the window - 1 tokens before it, so that
time and memory are linear in the length.

To the paths, k and v come with the window - 1 kept tokens in front, if there is a state. steps are the positions, int64
[batch or 1, time]; sinks are r and the sinks' keys and values, [batch, 1 or time, num_sinks, heads, ...]: each token's
own only where sequences are packed.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import chunk_size, join, silence, split, wide
from contexture.ops.segments import positions as positions_of
from contexture.ops.segments import runs

SMALLEST_CHUNK, LARGEST_CHUNK = 32, 64
"""Chunks are as long as the window, within limits: short ones make poor products, long ones score keys out of reach."""


class WindowState(NamedTuple):
    """What is kept of the past: the last window - 1 tokens, the first num_sinks, and how many were seen.

    keys, sink_keys: [batch, kept, heads, dim]; values, sink_values: [batch, kept, heads, out]; seen: int64 [batch].
    Places that no token has filled yet hold anything finite.
    """

    keys: Tensor
    values: Tensor
    sink_keys: Tensor
    sink_values: Tensor
    seen: Tensor


def no_window(
    batch: int,
    heads: int,
    dim: int,
    *,
    window: int,
    num_sinks: int = 0,
    out: int | None = None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> WindowState:
    """Nothing seen yet; `out` is the size of a value, `dim` unless given."""
    sizes = ((window - 1, dim), (window - 1, out or dim), (num_sinks, dim), (num_sinks, out or dim))
    keys, values, sink_keys, sink_values = (
        torch.zeros(batch, count, heads, size, device=device, dtype=dtype) for count, size in sizes
    )
    seen = torch.zeros(batch, dtype=torch.int64, device=device)
    return WindowState(keys, values, sink_keys, sink_values, seen)


def window_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int,
    steps: Tensor,
    sinks: tuple[Tensor, Tensor, Tensor] | None,
    slopes: Tensor | None,
) -> Tensor:
    """The definition, one query after another, in fp32 at least."""
    dtype, held = v.dtype, wide(v.dtype)
    missing = window - 1 - (k.shape[1] - q.shape[1])
    k, v = (F.pad(x.to(held), (0, 0, 0, 0, missing, 0)) for x in (k, v))
    q = q.to(held)
    slope = q.new_zeros(q.shape[2]) if slopes is None else slopes.to(held)
    distance = torch.arange(window - 1, -1, -1, device=q.device)
    outputs = []
    for t in range(q.shape[1]):
        scores = scale * torch.einsum("bhd,bshd->bhs", q[:, t], k[:, t : t + window])
        scores = scores - slope[:, None] * distance.to(held)
        scores = scores.masked_fill((distance > steps[:, t, None]).unsqueeze(1), -math.inf)
        values = v[:, t : t + window]
        if sinks is not None:
            r, sink_keys, sink_values = (x[:, t if x.shape[1] > 1 else 0].to(held) for x in sinks)
            farther = scale * torch.einsum("bhd,bjhd->bhj", r, sink_keys)
            place = torch.arange(sink_keys.shape[1], device=q.device)
            reach = steps[:, t, None].clamp(max=place.numel() + window - 1) - place
            farther = farther - slope[:, None] * reach.unsqueeze(1).to(held)
            farther = farther.masked_fill((place > steps[:, t, None] - window).unsqueeze(1), -math.inf)
            scores, values = torch.cat((farther, scores), -1), torch.cat((sink_values, values), 1)
        outputs.append(torch.einsum("bhs,bshe->bhe", scores.softmax(-1), values))
    return torch.stack(outputs, 1).to(dtype)


def window_attention_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int,
    steps: Tensor,
    sinks: tuple[Tensor, Tensor, Tensor] | None,
    slopes: Tensor | None,
) -> Tensor:
    """Chunks of queries against the blocks of keys that their windows touch, by batched products."""
    time, dtype = q.shape[1], v.dtype
    size = chunk_size(time, min(max(window, SMALLEST_CHUNK), LARGEST_CHUNK))
    queries, keys, values = split(q * scale, size), *(_stretches(x, time, size, window) for x in (k, v))
    scores = queries @ keys.mT
    ahead = keys.shape[3] - size
    places = torch.unflatten(F.pad(steps, (0, -time % size)), 1, (-1, size))[:, None, :, :, None]
    distance = torch.arange(ahead, ahead + size, device=q.device)[:, None] - torch.arange(
        keys.shape[3], device=q.device
    )
    if slopes is not None:
        scores = scores - slopes.to(dtype)[:, None, None, None] * distance.to(dtype)
    hidden = (distance < 0) | (distance > places.clamp(max=window - 1))
    # Added and not filled in: what is added has no gradient, and needs no pass of its own backwards.
    scores = scores.add_(torch.zeros(hidden.shape, dtype=dtype, device=q.device).masked_fill_(hidden, -math.inf))
    if sinks is None:
        return join(torch.softmax(scores, -1, dtype=wide(dtype)).to(dtype) @ values, time)
    farther = split(_sink_scores(*sinks[:2], scale=scale, window=window, steps=steps, slopes=slopes), size)
    num_sinks = farther.shape[-1]
    weights = torch.softmax(torch.cat((farther, scores), -1), -1, dtype=wide(dtype)).to(dtype)
    near = join(weights[..., num_sinks:] @ values, time)
    return near + _per_token(join(weights[..., :num_sinks], time), sinks[2])


def _stretches(x: Tensor, time: int, size: int, window: int) -> Float[Tensor, "batch heads chunks covered dim"]:
    """What the queries of each chunk may see: its own block and as many before it as a window reaches into.

    Blocks are picked by their numbers, so that the gradient of all overlapping stretches is one sum.
    """
    past = x.shape[1] - time
    if time == size:
        return x.transpose(1, 2).unsqueeze(2)
    count, before = -(-time // size), -(-(window - 1) // size)
    if past == 0:
        before = min(before, count - 1)
    blocks = split(F.pad(x, (0, 0, 0, 0, before * size - past, 0)), size)
    picked = torch.arange(count, device=x.device)[:, None] + torch.arange(before + 1, device=x.device)
    return torch.unflatten(blocks.index_select(2, picked.flatten()), 2, (count, -1)).flatten(3, 4)


def _sink_scores(
    r: Tensor, keys: Tensor, *, scale: float, window: int, steps: Tensor, slopes: Tensor | None
) -> Float[Tensor, "batch time heads sinks"]:
    r = r * scale
    one = keys.shape[1] == 1
    scores = torch.einsum("bthd,bjhd->bthj", r, keys[:, 0]) if one else torch.einsum("bthd,btjhd->bthj", r, keys)
    place = torch.arange(scores.shape[-1], device=r.device)
    if slopes is not None:
        reach = (steps.unsqueeze(-1).clamp(max=place.numel() + window - 1) - place).to(scores.dtype)
        scores = scores - slopes.to(scores.dtype)[:, None] * reach.unsqueeze(2)
    return scores.masked_fill((place > steps.unsqueeze(-1) - window).unsqueeze(2), -math.inf)


def _per_token(weights: Tensor, values: Tensor) -> Tensor:
    """Weigh the sinks' values: the same ones for every token, or each token's own."""
    if values.shape[1] == 1:
        return torch.einsum("bthj,bjhe->bthe", weights, values[:, 0])
    return torch.einsum("bthj,btjhe->bthe", weights, values)


def _firsts(kept: Tensor, x: Tensor, starts: Int[Tensor, "batch time"]) -> Tensor:
    """The first tokens of sequences that begin at `starts`, [batch, time, sinks, heads, dim].

    A negative start means that the sequence began before x: its first tokens were kept.
    """
    count, time = kept.shape[1], starts.shape[1]
    place = torch.arange(count, device=x.device)
    index = starts.unsqueeze(-1) + place
    index = torch.where(index < 0, place, (index + count).clamp(max=count + x.shape[1] - 1))
    found = torch.take_along_dim(torch.cat((kept, x), 1), index.flatten(1)[:, :, None, None], 1)
    return torch.unflatten(found, 1, (time, count))


def _lasts(kept: Tensor, x: Tensor) -> Tensor:
    """The last tokens of x, as many as are kept; zeros before the first."""
    missing = kept.shape[1] - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, missing, 0)) if missing > 0 else x[:, -missing:]


def _steps(x: Tensor, seen: Tensor, continued: bool, segments: Tensor | None) -> Int[Tensor, "rows time"]:
    """The positions of tokens within their sequences, the first of which goes on after `seen` tokens."""
    if segments is not None:
        return positions_of(segments) + torch.where(runs(segments) == 0, seen.unsqueeze(1), 0)
    clock = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    return clock + seen.unsqueeze(1) if continued else clock


def window_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    sink_q: Float[Tensor, "batch time heads dim"] | None = None,
    slopes: Float[Tensor, " heads"] | None = None,
    *,
    window: int,
    num_sinks: int = 0,
    scale: float | None = None,
    initial_state: WindowState | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], WindowState]:
    """Attend to the last `window` tokens and the first `num_sinks`; returns the outputs and what is kept.

    `sink_q` are the queries that sinks answer (r above), q unless given; `scale` is 1/sqrt(dim) unless given. An
    initial state belongs to the first segment.

    >>> one, v = torch.ones(1, 4, 1, 1), torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    >>> window_attention(one, one, v, window=2)[0].flatten().tolist()
    [1.0, 1.5, 2.5, 3.5]
    """
    batch, _, heads, dim = q.shape
    state = initial_state
    if state is None:
        sizes = {"window": window, "num_sinks": num_sinks, "out": v.shape[3]}
        state = no_window(batch, heads, dim, **sizes, device=q.device, dtype=k.dtype)
    steps = _steps(q, state.seen, initial_state is not None, segments)
    sinks, firsts = None, (state.sink_keys, state.sink_values)
    if num_sinks:
        starts = (torch.arange(q.shape[1], device=q.device) - steps).expand(batch, -1)
        starts = starts if segments is not None else starts[:, :1]
        sink_keys, sink_values = (_firsts(kept.to(x.dtype), x, starts) for kept, x in zip(firsts, (k, v), strict=True))
        sinks = (q if sink_q is None else sink_q, sink_keys, sink_values)
        firsts = (sink_keys[:, -1], sink_values[:, -1])
    scale = dim**-0.5 if scale is None else scale
    seen = (k, v)
    if initial_state is not None:
        seen = (torch.cat((state.keys.to(k.dtype), k), 1), torch.cat((state.values.to(v.dtype), v), 1))
    out = dispatch.run(OP, q, *seen, keys=window, scale=scale, window=window, steps=steps, sinks=sinks, slopes=slopes)
    keys, values = (_lasts(kept, x) for kept, x in zip((state.keys, state.values), seen, strict=True))
    count = (steps[:, -1] + 1).expand(batch).contiguous()
    return silence(out, segments), WindowState(keys, values, *firsts, count)


def _sampled(
    *inputs: Tensor, initial_state: WindowState | None = None, segments: Tensor | None = None
) -> tuple[Tensor, WindowState]:
    """What the laws call: a window that ends inside chunks, with sinks."""
    return window_attention(*inputs, window=24, num_sinks=3, initial_state=initial_state, segments=segments)


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    shape = (batch, time, heads, dim)
    q, k, v, r = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    return q, k, v, r, torch.rand(heads, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="window-attention",
    paths={"reference": window_attention_reference, "chunked": window_attention_chunked},
    call=_sampled,
    sample=_sample,
)
