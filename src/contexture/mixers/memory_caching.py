"""Memory caching: the memory of every segment of a sequence is kept (Behrouz et al., 2026, arXiv:2602.24281).

A sequence is cut into segments of `segment_length` tokens. Each starts a memory anew and leaves it in a cache:

    M_t = M_0 - sum_{i <= t, same segment} theta_i grad loss(M_0; k_i, v_i),    loss = -M(k).v

and a token reads its own memory M_t and those of earlier segments, C_1 to C_n, with weights w that sum to one:

    residual    M_t(q) + sum_i C_i(q)
    gated       w_0 M_t(q) + sum_i w_i C_i(q),    w = softmax over segments of u_t . mean of the segment's x,  u = x W_u
    soup        (w_0 M_t + sum_i w_i C_i)(q), the memories' weights averaged
    sparse      gated, over the token's own segment and the `num_selected` earlier ones of highest score

The memory is a network M(x) = x + W_2' s(W_1' x) with learned M_0, or a matrix, for which M_0 = 0, residual caching is
linear attention, and soup is gated. All gradients of a segment are taken at M_0: a segment is one chunk of the memory's
mechanism, so all segments are learned at once. Reading takes every token to every earlier segment.

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim] without convolution, q and k of length one; theta: a
sigmoid over `segment_length`. The state: every part of the cached memories, [batch, segments, heads, in, out] in fp32,
the segments' means, [batch, segments, width], and the inputs of the open segment, [batch, fewer, width].
"""

import math
from itertools import starmap
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import Heads
from contexture.ops.anchors import Windows, even_windows, no_offset, windows
from contexture.ops.cached_memories import cached_memories
from contexture.ops.chunks import silence, wide
from contexture.ops.memories import Factors, Matrix, Memory, Network, Parts
from contexture.ops.segments import padding, runs
from contexture.ops.unit import unit
from contexture.protocols import MixerCard

PAPER = "Behrouz et al., Memory Caching: RNNs with Growing Memory, arXiv:2602.24281"


class CachedState(NamedTuple):
    """The memories of whole segments, [batch, segments, heads, in, out] a part, the segments' means, [batch, segments,
    width], and the inputs of the open segment, [batch, fewer than segment_length, width]."""

    parts: Parts
    means: Tensor
    inputs: Tensor


class _Weights(NamedTuple):
    """How much a token reads of its own memory, [batch, time, 1], and of each cached one, [batch, time, cached]."""

    own: Tensor
    cached: Tensor


class _MemoryCaching(nn.Module):
    """What the four ways of reading a cache share; they differ in `_weigh` and in `averages`."""

    averages: ClassVar[bool] = False
    scored: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        segment_length: int = 16,
        memory: Literal["deep", "linear"] = "deep",
        expansion: int = 2,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if segment_length < 1:
            raise InputError(f"a segment of {segment_length} tokens holds none: give 1 or more")
        self.width, self.segment_length = width, segment_length
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        self.rate = Linear(width, num_heads, generator=generator)
        self.norm = RMSNorm(self.heads.dim, device=generator.device)
        self.asks = Linear(width, width, generator=generator, bias=False) if self.scored else None
        dim, hidden = self.heads.dim, expansion * self.heads.dim
        self.memory: Memory = Network("product") if memory == "deep" else Matrix("product")
        self.shapes = [(dim, hidden), (hidden, dim)] if memory == "deep" else [(dim, dim)]
        self.weights = nn.ModuleList(
            Embedding(num_heads, rows * columns, generator=generator, std=rows**-0.5)
            for rows, columns in self.shapes
            if memory == "deep"
        )

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> CachedState:
        """Nothing cached, and no inputs."""
        heads, held = self.heads.num_heads, wide(dtype)
        parts = (torch.zeros(batch, 0, heads, *shape, device=device, dtype=held) for shape in self.shapes)
        empty = torch.zeros(batch, 0, self.width, device=device, dtype=held)
        return CachedState(tuple(parts), empty, empty.to(dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: CachedState
    ) -> tuple[Float[Tensor, "batch time width"], CachedState]:
        """Mix further tokens: the open segment is read again with them."""
        new = x.shape[1]
        x = torch.cat((state.inputs, x), 1)
        time, length = x.shape[1], self.segment_length
        cut = even_windows(time, length, 0, device=x.device)
        out, parts, means = self._mix(x, cut, cached=state)
        whole = state.means.shape[1] + time // length
        kept = tuple(part[:, :whole] for part in parts)
        return out[:, time - new :], CachedState(kept, means[:, :whole], x[:, time - time % length :])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        cached = self.init_state(x.shape[0], device=x.device, dtype=x.dtype)
        if segments is None:
            return self._mix(x, even_windows(x.shape[1], self.segment_length, 0, device=x.device), cached=cached)[0]
        cut = windows(x.shape[1], self.segment_length, 0, no_offset(x.shape[0], device=x.device), segments)
        x = x.masked_fill(padding(segments).unsqueeze(-1), 0.0)
        return self._mix(x, cut, cached=cached, segments=segments)[0]

    def _mix(
        self, x: Tensor, cut: Windows, *, cached: CachedState, segments: Tensor | None = None
    ) -> tuple[Tensor, Parts, Tensor]:
        """The outputs, and the memories and means of all segments, cached ones before those of x."""
        dtype, held = x.dtype, wide(x.dtype)
        q, k, v = (one.to(held) for one in self.heads.split(x))
        theta = torch.sigmoid(self.rate(x)).to(held).unsqueeze(-1) / self.segment_length
        real = cut.real[:, :, :, None]
        q, k = (cut.own(unit(one)).transpose(2, 3) for one in (q, k))
        v = cut.own(v * theta).masked_fill(~real.unsqueeze(-1), 0.0).transpose(2, 3)
        fresh = self._fresh(x.shape[0], device=x.device, dtype=held)
        factors = self.memory.errors(tuple(part.unsqueeze(1) for part in fresh), k, v)
        learned = (part.unsqueeze(1) + one.inputs.mT @ one.errors for part, one in zip(fresh, factors, strict=True))
        parts = tuple(starmap(_joined, zip(cached.parts, learned, strict=True)))

        inputs = cut.own(x.to(held)).masked_fill(~real, 0.0)
        count = cut.real.to(held).cumsum(-1).clamp(min=1).unsqueeze(-1)
        running = inputs.cumsum(2) / count
        means = _joined(cached.means, running[:, :, -1])
        weights = self._weigh(cut.own(x), running, means, _visible(cut, cached.means.shape[1], segments))
        read = self._read(q, fresh, factors, parts, weights)
        out = silence(cut.paste(read.transpose(2, 3)), segments)
        return self.heads.join(self.norm(out.to(dtype))), parts, means

    def _fresh(self, batch: int, *, device: torch.device, dtype: torch.dtype) -> Parts:
        """M_0 for every head, [batch, heads, in, out]."""
        heads = self.heads.num_heads
        if not self.weights:
            return (torch.zeros(batch, heads, *self.shapes[0], device=device, dtype=dtype),)
        ids = torch.arange(heads, device=device).expand(batch, -1)
        drawn = zip(self.weights, self.shapes, strict=True)
        return tuple(torch.unflatten(weights(ids), -1, shape).to(dtype) for weights, shape in drawn)

    def _weigh(self, x: Tensor, running: Tensor, means: Tensor, visible: Tensor) -> _Weights:
        """Softmax over the scores of the own segment and the visible ones; visible: [batch, chunks, 1, cached]."""
        assert self.asks is not None
        asks = self.asks(x).to(means.dtype) / math.sqrt(self.width)
        own = torch.linalg.vecdot(asks, running).unsqueeze(-1)
        scores = (asks @ means.mT.unsqueeze(1)).masked_fill(~visible, -math.inf)
        weights = torch.cat((own, self._select(scores)), -1).softmax(-1)
        return _Weights(weights[..., :1], weights[..., 1:])

    def _select(self, scores: Tensor) -> Tensor:
        return scores

    def _read(self, q: Tensor, fresh: Parts, factors: tuple[Factors, ...], parts: Parts, weights: _Weights) -> Tensor:
        """q: [batch, chunks, heads, slots, dim]; the same shape."""

        def own(part: int, rows: Tensor) -> Tensor:
            one = factors[part]
            return rows @ fresh[part].unsqueeze(1) + (rows @ one.inputs.mT).tril() @ one.errors

        def cached(rows: Tensor, *memories: Tensor) -> Tensor:
            flat = rows.transpose(2, 3).flatten(1, 2)
            read = cached_memories(flat, weights.cached.flatten(1, 2), *memories)
            return torch.unflatten(read, 1, (rows.shape[1], -1)).transpose(2, 3)

        mine = weights.own.unsqueeze(2)
        if self.averages:
            return self.memory.read(lambda part, rows: mine * own(part, rows) + cached(rows, parts[part]), q)
        return mine * self.memory.read(own, q) + cached(q, *parts)


def _joined(before: Tensor, after: Tensor) -> Tensor:
    """Along the second axis; what was cached may have rows for one batch entry of many."""
    return torch.cat((before, after.expand(before.shape[0], *after.shape[1:])), 1)


def _visible(cut: Windows, num_before: int, segments: Tensor | None) -> Tensor:
    """Which memories the tokens of a chunk see, [batch or 1, chunks, 1, num_before + chunks]: their earlier ones."""
    chunks = cut.real.shape[1]
    earlier = torch.ones(chunks, num_before + chunks, dtype=torch.bool, device=cut.real.device).tril(num_before - 1)
    if segments is None or cut.start is None:
        return earlier.unsqueeze(1).unsqueeze(0)
    owner = runs(segments).gather(1, cut.start.clamp(max=cut.time - 1))
    return (earlier & (owner.unsqueeze(2) == owner.unsqueeze(1))).unsqueeze(2)


class MemoryCachingResidual(_MemoryCaching):
    """Reads of all earlier segments' memories are added."""

    card = MixerCard(
        name="memory-caching-residual",
        summary="Memories of earlier segments are kept, and their reads added to the present one's.",
        paper=PAPER,
        year=2026,
        state="grows",
        cost="quadratic",
    )
    scored = False

    def _weigh(self, x: Tensor, running: Tensor, means: Tensor, visible: Tensor) -> _Weights:
        ones = torch.ones_like(running[..., :1])
        return _Weights(ones, ones * visible.to(ones.dtype))


class MemoryCachingGated(_MemoryCaching):
    """Reads of all earlier segments' memories are weighed by how well their means answer the token."""

    card = MixerCard(
        name="memory-caching-gated",
        summary="Memories of earlier segments are kept, and their reads weighed by a gate (GRM).",
        paper=PAPER,
        year=2026,
        state="grows",
        cost="quadratic",
    )


class MemoryCachingSoup(_MemoryCaching):
    """The weights of all earlier segments' memories are averaged before they are read."""

    card = MixerCard(
        name="memory-caching-soup",
        summary="Memories of earlier segments are kept, and averaged by a gate into the one that is read.",
        paper=PAPER,
        year=2026,
        state="grows",
        cost="quadratic",
    )
    averages = True


class MemoryCachingSparse(_MemoryCaching):
    """Only the earlier segments of highest score are read."""

    card = MixerCard(
        name="memory-caching-sparse",
        summary="Memories of earlier segments are kept, and the few that answer a token best are read (SSC).",
        paper=PAPER,
        year=2026,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        segment_length: int = 16,
        num_selected: int = 2,
        memory: Literal["deep", "linear"] = "deep",
        expansion: int = 2,
        gain: float = 1.0,
    ) -> None:
        super().__init__(
            width,
            num_heads=num_heads,
            generator=generator,
            segment_length=segment_length,
            memory=memory,
            expansion=expansion,
            gain=gain,
        )
        self.num_selected = num_selected

    def _select(self, scores: Tensor) -> Tensor:
        count = min(self.num_selected, scores.shape[-1])
        least = scores.topk(count, dim=-1).values[..., -1:] if count else scores
        return scores.masked_fill(scores < least, -math.inf)
