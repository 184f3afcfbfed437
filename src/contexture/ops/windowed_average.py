"""The running average under exponentials of keys, with biases for the keys inside a window (Zhai et al., 2021,
arXiv:2105.14103: AFT-local and AFT-conv).

    y_t = sum_{s <= t} exp(k_s + w_ts) v_s / sum_{s <= t} exp(k_s + w_ts),    w_ts = b_t[t - s] for t - s < window, or 0

Keys inside the window are summed one by one, all earlier ones are one running average (`exponential_average`), and
the two are merged; no exponent exceeds zero.

k, v, y: [batch, time, heads, dim]; b: [rows, time or 1, heads or 1, window], where the batch is rows times as large as
that of one row, rows outermost. The state is the average of the keys that have left the window and the last
window - 1 keys and values, all in fp32 at least. A segment starts from nothing.
"""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import in_parts, silence, too_long, wide
from contexture.ops.exponential_average import EMPTY, LogAverage, average, hide, merge, nothing, running
from contexture.ops.segments import runs as runs_of


class Window(NamedTuple):
    """What lies before the next token's window, [batch, heads, dim] twice, and the window's keys and values,
    [batch, window - 1, heads, dim]."""

    log_sum: Tensor
    average: Tensor
    keys: Tensor
    values: Tensor


def no_window(
    batch: int, heads: int, dim: int, *, window: int, device: torch.device | str | None = None, dtype: torch.dtype
) -> Window:
    """The state before any token."""
    keys = torch.full((batch, window - 1, heads, dim), EMPTY, device=device, dtype=wide(dtype))
    return Window(*nothing(batch, heads, dim, device=device, dtype=dtype), keys, torch.zeros_like(keys))


def _rows(bias: Tensor, batch: int) -> Tensor:
    return bias if bias.shape[0] == 1 else bias.repeat_interleave(batch // bias.shape[0], 0)


def windowed_average_reference(
    k: Tensor, v: Tensor, bias: Tensor, *, state: Window, segments: Tensor | None
) -> tuple[Tensor, Window]:
    """The definition, one step after another."""
    dtype, window = v.dtype, bias.shape[3]
    stretch = None if segments is None else runs_of(segments)
    k, v, bias = k.to(state.keys.dtype), v.to(state.keys.dtype), _rows(bias, k.shape[0]).to(state.keys.dtype)
    bias = bias.expand(-1, k.shape[1], -1, -1)
    keys, values = (list(torch.cat(both, 1).unbind(1)) for both in ((state.keys, k), (state.values, v)))
    far, outputs = LogAverage(*state[:2]), []
    for t in range(k.shape[1]):
        if stretch is not None and t > 0:
            ended = (stretch[:, t] != stretch[:, t - 1]).view(-1, 1, 1)
            far = hide(far, ended)
            keys[: window - 1] = [key.masked_fill(ended, EMPTY) for key in keys[: window - 1]]
        logits = [keys[i] + bias[:, t, :, window - 1 - i, None] for i in range(window)]
        outputs.append(merge(average(torch.stack(logits), torch.stack(values[:window]), over=0), far).average)
        far = merge(far, LogAverage(keys.pop(0), values.pop(0)))
    held = (torch.stack(x, 1) if x else state.keys for x in (keys, values))
    return silence(torch.stack(outputs, 1), segments).to(dtype), Window(*far, *held)


def _near(keys: Tensor, values: Tensor, bias: Tensor, *, runs: Tensor | None) -> LogAverage:
    """The average over every token's window, lag after lag: faster than all windows in one large tensor.

    keys, values: [batch, window - 1 + time, heads, dim]; bias: [rows, time or 1, heads or 1, window].
    """
    past = bias.shape[3] - 1
    time = keys.shape[1] - past
    logits = []
    for lag, one in enumerate(bias.unbind(3)):
        first = past - lag
        logit = keys[:, first : first + time] + one.unsqueeze(3)
        if runs is not None:
            apart = runs[:, first : first + time] != runs[:, past:]
            logit = logit.masked_fill(apart[:, :, None, None], EMPTY)
        logits.append(logit)
    top = functools.reduce(torch.maximum, [logit.detach() for logit in logits])
    total, summed = torch.zeros_like(top), torch.zeros_like(top)
    for lag, logit in enumerate(logits):
        weight = (logit - top).exp()
        total = total + weight
        summed = torch.addcmul(summed, weight, values[:, past - lag : past - lag + time])
    return LogAverage(top + total.log(), summed / total)


def windowed_average_chunked(
    k: Tensor, v: Tensor, bias: Tensor, *, state: Window, segments: Tensor | None
) -> tuple[Tensor, Window]:
    """The window lag by lag, beside one running average over all that has left it; long sequences part by part."""
    if too_long(k, segments):
        return in_parts(
            lambda part, before: windowed_average_chunked(*part, state=before, segments=None), (k, v, bias), state
        )
    (_, time, _, _), dtype, past = k.shape, v.dtype, bias.shape[3] - 1
    k, v = torch.cat((state.keys, k), 1), torch.cat((state.values, v), 1)
    left = LogAverage(
        torch.cat((state.log_sum.unsqueeze(1), k[:, :time]), 1), torch.cat((state.average.unsqueeze(1), v[:, :time]), 1)
    )
    runs = None if segments is None else F.pad(runs_of(segments), (past, 0))
    far = running(left, None if runs is None else F.pad(runs, (1, 0))[:, : time + 1])
    before = LogAverage(far.log_sum[:, :time], far.average[:, :time])
    if runs is not None:
        before = hide(before, (F.pad(runs, (1, 0))[:, :time] != runs[:, past:])[:, :, None, None])
    near = _near(k, v, _rows(bias, k.shape[0]).to(k.dtype), runs=runs)
    after = Window(far.log_sum[:, -1], far.average[:, -1], k[:, time:], v[:, time:])
    return silence(merge(near, before).average, segments).to(dtype), after


def windowed_average(
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads dim"],
    bias: Float[Tensor, "rows #time #heads window"],
    *,
    initial_state: Window | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads dim"], Window]:
    """Average all values so far under the exponentials of their keys and biases; bias[..., j] is that of lag j.

    >>> v = torch.tensor([1.0, 3.0, 5.0]).view(1, 3, 1, 1)
    >>> bias = torch.tensor([1.0, 3.0]).log().view(1, 1, 1, 2)
    >>> windowed_average(torch.zeros_like(v), v, bias)[0].flatten()
    tensor([1.0000, 1.5000, 3.0000])
    """
    batch, _, heads, dim = k.shape
    if initial_state is None:
        initial_state = no_window(batch, heads, dim, window=bias.shape[3], device=k.device, dtype=k.dtype)
    out, state = dispatch.run(OP, k, v, bias, keys=k.shape[1], state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return 3 * k, v, torch.randn(batch, time, heads, 5, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="windowed-average",
    paths={"reference": windowed_average_reference, "chunked": windowed_average_chunked},
    call=windowed_average,
    sample=_sample,
)
