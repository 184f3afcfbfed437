"""Softmax averages of every prefix (Attention as an RNN; Feng et al., 2024, arXiv:2405.13956).

    o_t = sum_{s <= t} exp(c_s) v_s / sum_{s <= t} exp(c_s)

where the score c_s of a token does not depend on who asks, so that one state serves all later tokens:

    m_t = max(m_{t-1}, c_t),  u_t = u_{t-1} exp(m_{t-1} - m_t) + exp(c_t - m_t),  o_t = w_t / u_t,
    w_t = w_{t-1} exp(m_{t-1} - m_t) + v_t exp(c_t - m_t)

The state is part of a softmax, and such parts join associatively (`contexture.ops.softmax_parts`): the chunked form
computes all prefixes of a chunk by one product and scans the chunks' parts.

c: [batch, time, heads]; v, o: [batch, time, heads, out]; m, u: [batch, heads]; w: [batch, heads, out]; states are in
fp32 at least, with m = -inf before any token. A change of segment starts anew.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import chunk_size, join, masks, silence, split, wide
from contexture.ops.segments import runs
from contexture.ops.softmax_parts import SoftmaxPart, join_parts, no_part

CHUNK = 64


def prefix_softmax_reference(
    scores: Tensor, v: Tensor, *, initial_state: SoftmaxPart | None, segments: Tensor | None = None
) -> tuple[Tensor, SoftmaxPart]:
    """The definition, one step after another."""
    state = _start(initial_state, v)
    stretch = None if segments is None else runs(segments)
    outputs, dtype = [], v.dtype
    scores, v = scores.to(state.total.dtype), v.to(state.total.dtype)
    for t in range(v.shape[1]):
        if stretch is not None and t > 0:
            fresh = (stretch[:, t] != stretch[:, t - 1]).unsqueeze(1)
            state = SoftmaxPart(state.largest.masked_fill(fresh, -math.inf), *state[1:])
        state = join_parts(state, SoftmaxPart(scores[:, t], torch.ones_like(scores[:, t]), v[:, t]))
        outputs.append(state.summed / state.total.unsqueeze(2))
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


def _start(state: SoftmaxPart | None, v: Tensor) -> SoftmaxPart:
    if state is not None:
        return state
    return no_part(v.shape[0], v.shape[2], out=v.shape[3], device=v.device, dtype=wide(v.dtype))


def prefix_softmax_chunked(
    scores: Tensor, v: Tensor, *, initial_state: SoftmaxPart | None, segments: Tensor | None = None
) -> tuple[Tensor, SoftmaxPart]:
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

    start = _start(initial_state, v)
    state, befores = (start.largest, torch.cat((start.summed, start.total.unsqueeze(-1)), -1)), []
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


def _close(
    state: tuple[Tensor, Tensor], scores: Tensor, initial: SoftmaxPart | None, segments: Tensor | None
) -> SoftmaxPart:
    """The last state relative to a maximum that has a gradient: that of the largest score."""
    constant, sums = state
    if segments is not None:
        largest = constant
    else:
        largest = scores.amax(1)
        largest = largest if initial is None else torch.maximum(initial.largest, largest)
        sums = sums * torch.exp(constant - largest).unsqueeze(-1)
    return SoftmaxPart(largest, sums[..., -1], sums[..., :-1])


def prefix_softmax(
    scores: Float[Tensor, "batch time heads"],
    v: Float[Tensor, "batch time heads out"],
    *,
    initial_state: SoftmaxPart | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], SoftmaxPart]:
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
