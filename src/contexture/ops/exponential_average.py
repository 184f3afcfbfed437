"""The running average of values weighted by exponentials of keys, every channel by itself.

    y_t = sum_{s <= t} exp(k_s) v_s / sum_{s <= t} exp(k_s),    l_t = log sum_{s <= t} exp(k_s)

It is what an Attention Free Transformer without position biases mixes (AFT-simple; Zhai et al., 2021,
arXiv:2105.14103).
Two stretches of tokens with sums l, l' and averages y, y' are together

    L = log(exp l + exp l'),    Y = exp(l - L) y + exp(l' - L) y'

where no exponent exceeds zero, so keys of any size are safe. The fast form joins all pairs inside chunks of 4, then the
chunks in the same way, and so on: about five joins for each token, at any length.

k, v, y: [batch, time, heads, dim]. The state is l and y of the last token, [batch, heads, dim], in fp32 at least.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import in_parts, silence, too_long, wide
from contexture.ops.segments import runs as runs_of

CHUNK = 4
EMPTY = -1e30
"""The logarithm of a sum over nothing: far below any key, and finite, so that differences are."""


class LogAverage(NamedTuple):
    """The logarithm of summed weights and the average under them, [batch, heads, dim] each, or with time."""

    log_sum: Tensor
    average: Tensor


def nothing(
    batch: int, heads: int, dim: int, *, device: torch.device | str | None = None, dtype: torch.dtype
) -> LogAverage:
    """The average over no token."""
    log_sum = torch.full((batch, heads, dim), EMPTY, device=device, dtype=wide(dtype))
    return LogAverage(log_sum, torch.zeros_like(log_sum))


def merge(one: LogAverage, other: LogAverage) -> LogAverage:
    """The sum and the average over two disjoint sets of tokens.

    >>> both = merge(LogAverage(torch.zeros(1), torch.tensor([3.0])), LogAverage(torch.zeros(1), torch.tensor([5.0])))
    >>> both.average
    tensor([4.])
    """
    top = torch.maximum(one.log_sum, other.log_sum).detach()
    left, right = (one.log_sum - top).exp(), (other.log_sum - top).exp()
    total = left + right
    return LogAverage(top + total.log(), (left * one.average + right * other.average) / total)


def average(logits: Float[Tensor, "*lead"], values: Float[Tensor, "*lead"], *, over: int) -> LogAverage:
    """The sum and the average along one axis."""
    top = logits.amax(over, keepdim=True).detach()
    weights = (logits - top).exp()
    total = weights.sum(over)
    return LogAverage(top.squeeze(over) + total.log(), (weights * values).sum(over) / total)


def running(tokens: LogAverage, runs: Int[Tensor, "batch time"] | None = None) -> LogAverage:
    """Sums and averages up to every token of its stretch; tokens, results: [batch, time, heads, dim]."""
    time = tokens.log_sum.shape[1]
    size = min(time, CHUNK)
    fill = (0, 0, 0, 0, 0, -time % size)
    log_sum = torch.unflatten(F.pad(tokens.log_sum, fill, value=EMPTY), 1, (-1, size))
    values = torch.unflatten(F.pad(tokens.average, fill), 1, (-1, size))
    hidden = torch.ones(size, size, dtype=torch.bool, device=log_sum.device).triu(1)
    if runs is not None:
        runs = torch.unflatten(torch.cat((runs, runs[:, -1:].expand(-1, -time % size)), 1), 1, (-1, size))
        hidden = hidden | (runs.unsqueeze(-1) != runs.unsqueeze(-2))
    pairs = log_sum.unsqueeze(2).masked_fill(hidden[..., None, None], EMPTY)
    inside = average(pairs, values.unsqueeze(2), over=3)
    if inside.log_sum.shape[1] > 1:
        inside = merge(inside, _before(inside, runs))
    return LogAverage(inside.log_sum.flatten(1, 2)[:, :time], inside.average.flatten(1, 2)[:, :time])


def _before(inside: LogAverage, runs: Tensor | None) -> LogAverage:
    """What all earlier chunks hold of each token's stretch; inside: [batch, chunks, size, heads, dim]."""
    last = None if runs is None else runs[..., -1]
    ends = running(LogAverage(inside.log_sum[:, :, -1], inside.average[:, :, -1]), last)
    shift = (0, 0, 0, 0, 1, 0)
    log_sum = F.pad(ends.log_sum[:, :-1], shift, value=EMPTY).unsqueeze(2)
    before = LogAverage(log_sum, F.pad(ends.average[:, :-1], shift).unsqueeze(2))
    if runs is None or last is None:
        return before
    ended = runs != F.pad(last[:, :-1], (1, 0)).unsqueeze(-1)
    return hide(before, ended[..., None, None])


def hide(tokens: LogAverage, hidden: Bool[Tensor, "*lead"]) -> LogAverage:
    """Nothing in the places of a mask."""
    return LogAverage(tokens.log_sum.masked_fill(hidden, EMPTY), tokens.average)


def exponential_average_reference(
    k: Tensor, v: Tensor, *, initial_state: LogAverage | None, segments: Tensor | None = None
) -> tuple[Tensor, LogAverage]:
    """The definition, one step after another."""
    dtype, held = v.dtype, wide(v.dtype)
    state = nothing(k.shape[0], *k.shape[2:], device=k.device, dtype=held) if initial_state is None else initial_state
    stretch = None if segments is None else runs_of(segments)
    outputs = []
    for t in range(k.shape[1]):
        if stretch is not None and t > 0:
            state = hide(state, (stretch[:, t] != stretch[:, t - 1]).view(-1, 1, 1))
        state = merge(state, LogAverage(k[:, t].to(held), v[:, t].to(held)))
        outputs.append(state.average)
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


def exponential_average_chunked(
    k: Tensor, v: Tensor, *, initial_state: LogAverage | None, segments: Tensor | None = None
) -> tuple[Tensor, LogAverage]:
    """Pairs inside chunks; what came before is one token more. Long sequences are taken part by part."""
    if too_long(k, segments):
        start = initial_state or nothing(k.shape[0], *k.shape[2:], device=k.device, dtype=wide(k.dtype))
        return in_parts(lambda part, before: exponential_average_chunked(*part, initial_state=before), (k, v), start)
    dtype, held = v.dtype, wide(v.dtype)
    k, v = k.to(held), v.to(held)
    runs = None if segments is None else runs_of(segments)
    if initial_state is not None:
        k, v = (torch.cat((first.unsqueeze(1), x), 1) for first, x in zip(initial_state, (k, v), strict=True))
        runs = None if runs is None else F.pad(runs, (1, 0))
    log_sum, out = running(LogAverage(k, v), runs)
    state = LogAverage(log_sum[:, -1], out[:, -1])
    if initial_state is not None:
        out = out[:, 1:]
    return silence(out, segments).to(dtype), state


def exponential_average(
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads dim"],
    *,
    initial_state: LogAverage | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads dim"], LogAverage]:
    """Average all values so far under the exponentials of their keys; returns the averages and the last state.

    >>> v = torch.tensor([1.0, 3.0, 5.0]).view(1, 3, 1, 1)
    >>> exponential_average(torch.zeros_like(v), v)[0].flatten().tolist()
    [1.0, 2.0, 3.0]
    """
    out, state = dispatch.run(OP, k, v, keys=k.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return 3 * k, v


OP = dispatch.Op(
    name="exponential-average",
    paths={"reference": exponential_average_reference, "chunked": exponential_average_chunked},
    call=exponential_average,
    sample=_sample,
)
