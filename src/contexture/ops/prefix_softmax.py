"""Softmax averages of every prefix (Attention as an RNN; Feng et al., 2024, arXiv:2405.13956).

    o_t = sum_{s <= t} exp(c_s) v_s / sum_{s <= t} exp(c_s)

where the score c_s of a token does not depend on who asks, so that one state serves all later tokens:

    m_t = max(m_{t-1}, c_t),  u_t = u_{t-1} exp(m_{t-1} - m_t) + exp(c_t - m_t),  o_t = w_t / u_t,
    w_t = w_{t-1} exp(m_{t-1} - m_t) + v_t exp(c_t - m_t)

Two such states join associatively: with m = max(m_1, m_2), (u, w) = sum_i exp(m_i - m) (u_i, w_i). The chunked form
computes all prefixes of a chunk by one product and scans the chunks' states.

c: [batch, time, heads]; v, o: [batch, time, heads, out]; m, u: [batch, heads]; w: [batch, heads, out]; states are in
fp32 at least, with m = -inf before any token. A change of segment starts anew.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import chunk_size, join, masks, silence, split, wide
from contexture.ops.segments import runs

CHUNK = 64


class PrefixState(NamedTuple):
    """The largest score, the sum of weights relative to it, [batch, heads], and of weighted values, [.., out]."""

    largest: Tensor
    total: Tensor
    summed: Tensor


def no_prefix(
    batch: int, heads: int, out: int, *, device: torch.device | str, dtype: torch.dtype
) -> PrefixState:
    """Nothing seen yet."""
    zeros = torch.zeros(batch, heads, out + 1, device=device, dtype=wide(dtype))
    return PrefixState(torch.full_like(zeros[..., 0], -math.inf), zeros[..., 0].clone(), zeros[..., 1:].clone())


def prefix_softmax_reference(
    scores: Tensor, v: Tensor, *, initial_state: PrefixState | None, segments: Tensor | None = None
) -> tuple[Tensor, PrefixState]:
    """The definition, one step after another."""
    batch, time, heads, size = v.shape
    empty = no_prefix(batch, heads, size, device=v.device, dtype=v.dtype)
    largest, total, summed = empty if initial_state is None else initial_state
    stretch = None if segments is None else runs(segments)
    outputs, dtype = [], v.dtype
    scores, v = scores.to(total.dtype), v.to(total.dtype)
    for t in range(time):
        if stretch is not None and t > 0:
            fresh = (stretch[:, t] != stretch[:, t - 1]).unsqueeze(1)
            largest, total = largest.masked_fill(fresh, -math.inf), total.masked_fill(fresh, 0.0)
            summed = summed.masked_fill(fresh.unsqueeze(2), 0.0)
        before, largest = largest, torch.maximum(largest, scores[:, t])
        kept, added = torch.exp(before - largest), torch.exp(scores[:, t] - largest)
        total = total * kept + added
        summed = summed * kept.unsqueeze(2) + v[:, t] * added.unsqueeze(2)
        outputs.append(summed / total.unsqueeze(2))
    return silence(torch.stack(outputs, 1), segments).to(dtype), PrefixState(largest, total, summed)


def prefix_softmax_chunked(
    scores: Tensor, v: Tensor, *, initial_state: PrefixState | None, segments: Tensor | None = None
) -> tuple[Tensor, PrefixState]:
    """A product inside chunks, a scan of their states between them.

    Maxima only keep exponentials in range: inside they are constants, and the last state's is put right at the end.
    """
    time, dtype, held = v.shape[1], v.dtype, wide(v.dtype)
    size = chunk_size(time, CHUNK)
    scores = F.pad(scores.to(held), (0, 0, 0, -time % size), value=-math.inf)
    columns = torch.unflatten(scores, 1, (-1, size)).permute(0, 3, 1, 2)
    hidden = torch.ones(size, size, dtype=torch.bool, device=v.device).triu(1)
    mask = None
    if segments is not None:
        mask = masks(segments, size, held)
        hidden = hidden | (mask.within == 0)
    table = columns.unsqueeze(-2).masked_fill(hidden, -math.inf)
    largest = table.detach().amax(-1)
    weights = torch.exp(table - largest.unsqueeze(-1)).to(dtype)
    sums = (weights @ F.pad(split(v, size), (0, 1), value=1.0)).to(held)

    state, befores = _open(initial_state, v), []
    kept = None if mask is None else mask.keeps.squeeze(-1).squeeze(-1).unbind(2)
    for n, (top, added) in enumerate(zip(largest[..., -1].unbind(2), sums[..., -1, :].unbind(2), strict=True)):
        befores.append(state)
        before, carried = state
        if kept is not None:
            before = before.masked_fill(kept[n] == 0, -math.inf)
        joint = torch.maximum(before.detach(), top)
        summed = carried * torch.exp(before - joint).unsqueeze(-1) + added * torch.exp(top - joint).unsqueeze(-1)
        state = joint, summed
    before = torch.stack([top for top, _ in befores], 2).unsqueeze(-1)
    if mask is not None:
        before = before.masked_fill(mask.reads.squeeze(-1) == 0, -math.inf)
    joint = torch.maximum(before.detach(), largest)
    carried = torch.stack([summed for _, summed in befores], 2).unsqueeze(-2)
    sums = carried * torch.exp(before - joint).unsqueeze(-1) + sums * torch.exp(largest - joint).unsqueeze(-1)
    out = join((sums[..., :-1] / sums[..., -1:]).to(dtype), time)
    return silence(out, segments), _close(state, scores, initial_state, segments)


def _open(state: PrefixState | None, v: Tensor) -> tuple[Tensor, Tensor]:
    """A state as a maximum and sums whose last column is the sum of weights."""
    if state is None:
        state = no_prefix(v.shape[0], v.shape[2], v.shape[3], device=v.device, dtype=v.dtype)
    return state.largest, torch.cat((state.summed, state.total.unsqueeze(-1)), -1)


def _close(
    state: tuple[Tensor, Tensor], scores: Tensor, initial: PrefixState | None, segments: Tensor | None
) -> PrefixState:
    """The last state relative to a maximum that has a gradient: that of the largest score."""
    constant, sums = state
    if segments is not None:
        largest = constant
    else:
        largest = scores.amax(1)
        largest = largest if initial is None else torch.maximum(initial.largest, largest)
        sums = sums * torch.exp(constant - largest).unsqueeze(-1)
    return PrefixState(largest, sums[..., -1], sums[..., :-1])


def prefix_softmax(
    scores: Float[Tensor, "batch time heads"],
    v: Float[Tensor, "batch time heads out"],
    *,
    initial_state: PrefixState | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], PrefixState]:
    """The softmax-weighted mean of the values so far, at every position; returns the means and the last state.

    >>> v = torch.tensor([6.0, 2.0]).view(1, 2, 1, 1)
    >>> prefix_softmax(torch.tensor([0.0, 3.0]).log1p().view(1, 2, 1), v)[0].flatten().tolist()
    [6.0, 2.799999952316284]
    """
    out, state = dispatch.run(OP, scores, v, keys=v.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    scores = 3 * torch.randn(batch, time, heads, generator=generator, dtype=torch.float64)
    return scores, torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="prefix-softmax",
    paths={"reference": prefix_softmax_reference, "chunked": prefix_softmax_chunked},
    call=prefix_softmax,
    sample=_sample,
)
