"""One softmax over a few memory slots and a window of recent tokens (NHA; Du et al., 2025, arXiv:2510.07019).

    K_t = diag(e^f_t) K_{t-1} + (1 - e^f_t) k_t',    V_t likewise with v_t        slots, as in gated slot attention
    p_t = softmax over slots m and tokens s in (t - window, t] of  scale [K_t q_t ; kw_s.qw_t]
    o_t = V_t' p_t[slots] + sum_s p_t[s] v_s

In chunks of rows Q, K, V with G the running sum of f inside the chunk, s = 1 - e^f and A = tril(Q K'):

    logits of slots = e^G * (Q K_0') + e^G * (A (s * e^-G)),    o = (p * e^G) V_0 + tril((p * e^G) (s * e^-G)') V

with K_0, V_0 the slots before the chunk. The exponents are taken from the chunk's middle, G - G_last / 2, and a decay
below -4 a step counts as -4 (the slot is left with 2 % of what it held), so that none exceeds 64 in a chunk of 32.

q, k: [batch, time, heads, dim], for the slots; v, o: [batch, time, heads, out]; f, not positive: [batch, time, heads,
slots]; qw, kw: [batch, time, heads, dim], for the window, which counts the present token. All in fp32 at least. The
cost is linear in time: queries come in blocks, each beside the keys of its own block and of the window before it.
A change of segment empties slots and window.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import dispatch
from contexture.ops.band import Band
from contexture.ops.chunks import add_product, chunk_size, join, masks, silence, split, wide
from contexture.ops.segments import positions as positions_of
from contexture.ops.segments import runs as runs_of

CHUNK = 32
BLOCK = 64
LOWEST = -4.0


class HybridState(NamedTuple):
    """Slots, [batch, heads, slots, dim + out] in fp32, keys beside values; the last window - 1 keys and values,
    [batch, window - 1, heads, ...]; and how many tokens have been seen, int64 [batch]."""

    slots: Tensor
    keys: Tensor
    values: Tensor
    positions: Tensor


def no_tokens(
    batch: int,
    heads: int,
    *,
    slots: int,
    window: int,
    dim: int,
    out: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> HybridState:
    """The state before any token: empty slots, and a window of which nothing has been seen."""
    past = max(0, window - 1)
    return HybridState(
        slots=torch.zeros(batch, heads, slots, dim + out, device=device, dtype=wide(dtype)),
        keys=torch.zeros(batch, past, heads, dim, device=device, dtype=dtype),
        values=torch.zeros(batch, past, heads, out, device=device, dtype=dtype),
        positions=torch.zeros(batch, dtype=torch.int64, device=device),
    )


def _begun(v: Tensor, decay: Tensor, kw: Tensor, window: int) -> HybridState:
    """`no_tokens` for these inputs."""
    batch, _, heads, slots = decay.shape
    sizes = {"slots": slots, "window": window, "dim": kw.shape[-1], "out": v.shape[-1]}
    return no_tokens(batch, heads, **sizes, device=v.device, dtype=v.dtype)


def _after(
    state: HybridState, slots: Tensor, kw: Tensor, v: Tensor, *, window: int, segments: Tensor | None
) -> HybridState:
    """The state behind the last token."""
    seen = state.positions + v.shape[1] if segments is None else positions_of(segments)[:, -1] + 1
    keys, values = (_latest(torch.cat(parts, 1), window - 1) for parts in ((state.keys, kw), (state.values, v)))
    return HybridState(slots, keys, values, seen)


def _latest(x: Tensor, count: int) -> Tensor:
    """The last `count` entries in time, with zeros before the first."""
    return F.pad(x, (0, 0, 0, 0, max(0, count - x.shape[1]), 0))[:, max(0, x.shape[1] - max(0, count)) :]


def _visible(state: HybridState, time: int, segments: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which tokens may be seen at all, [batch, past + time], and to which stretch they belong."""
    past = state.keys.shape[1]
    steps = torch.arange(-past, time, device=state.positions.device)
    there = steps >= -state.positions.unsqueeze(1)
    own = torch.zeros_like(there[:, past:], dtype=torch.int64) if segments is None else runs_of(segments)
    return there, F.pad(own, (past, 0))


def native_hybrid_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    qw: Tensor,
    kw: Tensor,
    *,
    window: int,
    scale: float,
    initial_state: HybridState | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, HybridState]:
    """The definition, one step after another."""
    state = _begun(v, decay, kw, window) if initial_state is None else initial_state
    dtype, held, dim = v.dtype, wide(v.dtype), q.shape[-1]
    slots, outputs, past = state.slots, [], state.keys.shape[1]
    there, stretch = _visible(state, q.shape[1], segments)
    keys = torch.cat((state.keys, kw), 1).to(held)
    values = torch.cat((state.values, v), 1).to(held)
    written = silence(torch.cat((k, v), -1).to(held), segments)
    decay = decay.to(held).clamp(min=LOWEST)
    for t in range(q.shape[1]):
        if t > 0:
            slots = slots * (stretch[:, past + t] == stretch[:, past + t - 1]).to(held).view(-1, 1, 1, 1)
        left = decay[:, t].exp().unsqueeze(-1)
        slots = left * slots + (1 - left) * written[:, t].unsqueeze(-2)
        seen = slice(past + t + 1 - min(window, past + t + 1), past + t + 1)
        logits = torch.einsum("bhd,bshd->bhs", qw[:, t].to(held), keys[:, seen])
        hidden = ~(there[:, seen] & (stretch[:, seen] == stretch[:, past + t, None]))
        logits = logits.masked_fill(hidden.unsqueeze(1), -torch.inf)
        of_slots = torch.einsum("bhd,bhmd->bhm", q[:, t].to(held), slots[..., :dim])
        weights = (scale * torch.cat((of_slots, logits), -1)).softmax(-1)
        on_slots, on_tokens = torch.split(weights, [slots.shape[2], logits.shape[-1]], -1)
        recalled = torch.einsum("bhm,bhme->bhe", on_slots, slots[..., dim:])
        outputs.append(recalled + torch.einsum("bhs,bshe->bhe", on_tokens, values[:, seen]))
    out = silence(torch.stack(outputs, 1), segments).to(dtype)
    return out, _after(state, slots, kw, v, window=window, segments=segments)


def native_hybrid_attention_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    qw: Tensor,
    kw: Tensor,
    *,
    window: int,
    scale: float,
    initial_state: HybridState | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, HybridState]:
    """Two passes of a gated linear attention around one softmax, and a banded table for the window."""
    time, held, dtype = q.shape[1], wide(v.dtype), v.dtype
    state = _begun(v, decay, kw, min(window, time)) if initial_state is None else initial_state
    slots = _Slots(scale * q.to(held), k.to(held), v.to(held), decay.to(held), state.slots, segments)
    if window == 0:
        out = slots.recall(slots.logits().softmax(-1))
        return silence(out, segments).to(dtype), _after(state, slots.last, kw, v, window=0, segments=segments)
    block = chunk_size(time, BLOCK)
    logits = split(slots.logits(), block)
    there, stretch = _visible(state, time, segments)
    keys, values = torch.cat((state.keys, kw), 1).to(held), torch.cat((state.values, v), 1).to(held)
    band = Band(scale * qw.to(held), keys, values, there=there, stretch=stretch, block=block)
    weights = torch.cat((logits, band.logits()), -1).softmax(-1)
    on_slots, on_tokens = torch.split(weights, [logits.shape[-1], weights.shape[-1] - logits.shape[-1]], -1)
    out = slots.recall(join(on_slots, time)) + join(on_tokens @ band.values, time)
    return silence(out, segments).to(dtype), _after(state, slots.last, kw, v, window=window, segments=segments)


class _Slots:
    """The slots over time, in chunks: what queries make of their keys, and what weights make of their values."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, initial: Tensor, segments: Tensor | None
    ) -> None:
        self.time, dim = q.shape[1], q.shape[-1]
        size = chunk_size(self.time, CHUNK)
        decays = split(decay.clamp(min=LOWEST), size)
        self.queries, keys = split(q, size), split(silence(k, segments), size)
        self.written = split(silence(v, segments), size)
        sums = decays.cumsum(-2)
        last = sums[..., -1:, :]
        share = -torch.expm1(decays)
        self.since_start, self.up, self.down = sums.exp(), (sums - last / 2).exp(), share * (last / 2 - sums).exp()
        self.scores = (self.queries @ keys.mT).tril_()
        left, added, self.within = last.exp().mT, share * (last - sums).exp(), None
        if segments is not None:
            mask = masks(segments, size, q.dtype)
            self.since_start, added = self.since_start * mask.reads, added * mask.writes
            left, self.within = left * mask.keeps, mask.within
            self.scores = self.scores * mask.within
        state, states = initial, []
        gained = added.mT @ torch.cat((keys, self.written), -1)
        for keep, gain in zip(left.unbind(2), gained.unbind(2), strict=True):
            states.append(state)
            state = torch.addcmul(gain, state, keep)
        self.last = state
        before = torch.stack(states, 2)
        self.keys, self.values = torch.split(before, [dim, before.shape[-1] - dim], -1)

    def logits(self) -> Tensor:
        """q_t.K_t for every slot, [batch, time, heads, slots]."""
        before = self.since_start * (self.queries @ self.keys.mT)
        return join(torch.addcmul(before, self.up, self.scores @ self.down), self.time)

    def recall(self, weights: Float[Tensor, "batch time heads slots"]) -> Tensor:
        """V_t' p_t, [batch, time, heads, out]."""
        weights = split(weights, self.up.shape[-2])
        products = ((weights * self.up) @ self.down.mT).tril_()
        if self.within is not None:
            products = products * self.within
        return join(add_product((weights * self.since_start) @ self.values, products, self.written), self.time)


def native_hybrid_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    decay: Float[Tensor, "batch time heads slots"],
    qw: Float[Tensor, "batch time heads dim"],
    kw: Float[Tensor, "batch time heads dim"],
    *,
    window: int = 24,
    scale: float | None = None,
    initial_state: HybridState | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], HybridState]:
    """Attend to the slots and to the last `window` tokens at once; returns the outputs and the state after them.

    `scale` is 1/sqrt(dim) unless given. Raises InputError if there is neither a slot nor a window.

    >>> one, none = torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 0)
    >>> v = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1)
    >>> native_hybrid_attention(one, one, v, none, one, one, window=2)[0].flatten().tolist()
    [1.0, 1.5, 4.0]
    """
    if window < 1 and not decay.shape[-1]:
        raise InputError("there is nothing to attend to without slots and without a window: give one of them")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, state = dispatch.run(
        OP,
        q,
        k,
        v,
        decay,
        qw,
        kw,
        keys=q.shape[1],
        window=window,
        scale=scale,
        initial_state=initial_state,
        segments=segments,
    )
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v, qw, kw = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(5))
    decay = -torch.rand(batch, time, heads, 3, generator=generator, dtype=torch.float64)
    return q, k, v, decay, qw, kw


OP = dispatch.Op(
    name="native-hybrid-attention",
    paths={"reference": native_hybrid_attention_reference, "chunked": native_hybrid_attention_chunked},
    call=native_hybrid_attention,
    sample=_sample,
)
