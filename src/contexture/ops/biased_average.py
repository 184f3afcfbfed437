"""The running average under exponentials of keys with a bias for every pair of positions (AFT-full; Zhai et al., 2021,
arXiv:2105.14103).

    y_t = sum_{s <= t} exp(k_s + w_ts) v_s / sum_{s <= t} exp(k_s + w_ts),    w_ts = a_t.b_s

Inside blocks of up to 16 the pairs are summed one by one. Then blocks of twice, four times, ... that size are cut in
two, and the second half finds all of the first by a matrix product,

    exp(w - max w) [exp(k - M) v, exp(k - M)],    M = the first half's largest key,

which is merged with what it has found before. Keys of any size are safe; a half whose biases spread over more than
about 80 (in fp32) may round to no weight at all. Of packed sequences, only the one at the cut has parts in both halves.

k, v, y: [batch, time, heads, dim]; a, b: [rows, time, rank], where the batch is rows times as large as that of one row,
rows outermost. The state is all keys, values and b so far, [batch, past, ...]. A change of segment hides the past.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import silence, wide
from contexture.ops.exponential_average import EMPTY, LogAverage, average, hide, merge
from contexture.ops.segments import runs as runs_of
from contexture.ops.softmax_attention import visible

SMALL = 16


class Past(NamedTuple):
    """The keys and values of earlier tokens, [batch, past, heads, dim], and their b, [batch, past, rank]."""

    keys: Tensor
    values: Tensor
    biases: Tensor


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


def biased_average_halves(
    k: Tensor, v: Tensor, left: Tensor, right: Tensor, *, segments: Tensor | None = None
) -> Tensor:
    """Pairs inside small blocks, then one half of ever larger blocks recalled by the other, then the carried past."""
    time, (heads, dim), dtype = left.shape[1], k.shape[2:], v.dtype
    k, v, left, right = (x.to(wide(dtype)) for x in (k.flatten(2), v.flatten(2), left, right))
    past = k.shape[1] - time
    (old_k, k), (old_v, v), (old_right, right) = (torch.split(x, [past, time], 1) for x in (k, v, right))
    runs = None if segments is None else runs_of(segments)
    half = small_block(time)
    seen = _pairs(k, v, left, right, size=half, runs=runs)
    while half < time:
        earlier = _across(k, v, left, right, half=half, runs=runs)
        halves = (_blocks(x, half, value=value).unbind(2) for x, value in zip(seen, (EMPTY, 0.0), strict=True))
        firsts, seconds = zip(*halves, strict=True)
        both = zip(firsts, merge(LogAverage(*seconds), earlier), strict=True)
        seen = LogAverage(*(torch.stack(pair, 2).flatten(1, 3)[:, :time] for pair in both))
        half *= 2
    if past:
        earlier = _recall(*(x.unsqueeze(1) for x in (old_k, old_v, left, old_right)))
        earlier = LogAverage(*(x.squeeze(1) for x in earlier))
        seen = merge(seen, earlier if runs is None else hide(earlier, (runs != 0).unsqueeze(2)))
    return silence(torch.unflatten(seen.average, 2, (heads, dim)), segments).to(dtype)


def small_block(time: int) -> int:
    """The smallest size, up to 16, of which a power of two covers time: so that the largest block is hardly padded.

    >>> [small_block(time) for time in (1, 16, 17, 768, 1000)]
    [1, 16, 9, 12, 16]
    """
    return -(-time // (1 << (-(-time // SMALL) - 1).bit_length()))


def _blocks(x: Tensor, half: int, *, value: float = 0.0) -> Tensor:
    """Cut time into blocks of two halves, [batch, blocks, 2, half, channels], the last filled up with `value`."""
    return torch.unflatten(F.pad(x, (0, 0, 0, -x.shape[1] % (2 * half)), value=value), 1, (-1, 2, half))


def _pairs(k: Tensor, v: Tensor, left: Tensor, right: Tensor, *, size: int, runs: Tensor | None) -> LogAverage:
    """What every token finds in its own small block, pair by pair."""
    batch, time, _ = k.shape
    fill = -time % size
    k = torch.unflatten(F.pad(k, (0, 0, 0, fill), value=EMPTY), 1, (-1, size))
    v, left, right = (torch.unflatten(F.pad(x, (0, 0, 0, fill)), 1, (-1, size)) for x in (v, left, right))
    hidden = torch.ones(size, size, dtype=torch.bool, device=k.device).triu(1)
    if runs is not None:
        places = torch.unflatten(F.pad(runs, (0, fill), value=-1), 1, (-1, size))
        hidden = hidden | (places.unsqueeze(-1) != places.unsqueeze(-2))
    bias = (left @ right.mT).repeat_interleave(batch // left.shape[0], 0).masked_fill(hidden, EMPTY)
    inside = average(k.unsqueeze(2) + bias.unsqueeze(4), v.unsqueeze(2), over=3)
    return LogAverage(*(x.flatten(1, 2)[:, :time] for x in inside))


def _across(k: Tensor, v: Tensor, left: Tensor, right: Tensor, *, half: int, runs: Tensor | None) -> LogAverage:
    """What the second half of every block finds in the first: of packed sequences, that at the cut alone."""
    keys, values, rights = (_blocks(x, half)[:, :, 0] for x in (k, v, right))
    lefts = _blocks(left, half)[:, :, 1]
    if runs is None:
        return _recall(keys, values, lefts, rights)
    places = _blocks(runs.unsqueeze(2), half, value=-1)
    apart = places != places[:, :, :1, -1:]
    return hide(_recall(keys.masked_fill(apart[:, :, 0], EMPTY), values, lefts, rights), apart[:, :, 1])


def _recall(k: Tensor, v: Tensor, left: Tensor, right: Tensor) -> LogAverage:
    """What queries find in keys that all lie before them.

    k, v: [batch, blocks, keys, channels]; left: [rows, blocks, queries, rank]; right: [rows, blocks, keys, rank].
    """
    rows, batch = left.shape[0], k.shape[0]
    top, bias = k.amax(2, keepdim=True).detach(), left @ right.mT
    peak = bias.amax(3, keepdim=True).detach()
    weights = (k - top).exp()
    sides = torch.unflatten(torch.cat((weights * v, weights), 3), 0, (rows, -1)).permute(0, 2, 3, 1, 4)
    sums = torch.unflatten((bias - peak).exp() @ sides.flatten(3), 3, (batch // rows, -1))
    summed, weight = sums.permute(0, 3, 1, 2, 4).flatten(0, 1).chunk(2, -1)
    weight = weight.clamp(min=torch.finfo(weight.dtype).tiny)
    return LogAverage(top + peak.repeat_interleave(batch // rows, 0) + weight.log(), summed / weight)


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
    paths={"reference": biased_average_reference, "halves": biased_average_halves},
    call=biased_average,
    sample=_sample,
)
