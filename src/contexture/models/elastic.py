"""A looped backbone of elastic depth (LoopFormer: Jeddi et al., 2026, arXiv:2602.11451).

    z_0 = e;    z_k = blocks(z_{k-1} | c_k),   c_k = mlp(sinusoids of t_k, sinusoids of d_k);    y = norm(z_last)

A trajectory is a list of steps d_k that sum to one, t_k the time before each: the full one has `loops` equal steps, and
shorter ones skip over several of these at once. c scales the branches of every block (`contexture.blocks.modulated`)
through maps that start at zero. A training step takes the full trajectory and a shorter one, drawn at random:

    loss(full) + short * loss(shorter) + consistency * mean |y_shorter - y_full|^2,  no gradient through y_full there

The paper's norms have no learned gains. e, z, y: [batch, time, width]; the state is one of the blocks for every loop.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.modulated import Factors, modulated, modulated_stream
from contexture.blocks.residual import ResidualBlock
from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.models.backbone import Backbone, BackboneConfig
from contexture.models.looped import Lesson

FREQUENCIES = 4


@dataclass(frozen=True, kw_only=True)
class ElasticConfig:
    """The layers that are looped, how often, and what a shorter trajectory counts in training.

    conditioned: whether the blocks are told time and step; otherwise c is that of t = d = 0 at every loop.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(pattern="softmax"))
    loops: int = 8
    short: float = 0.1
    consistency: float = 0.1
    conditioned: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))
        if self.loops < 2 or self.short < 0 or self.consistency < 0:
            raise InputError("an elastic backbone needs at least two loops, and weights of at least zero")

    @property
    def width(self) -> int:
        """The width of the vectors."""
        return self.backbone.width


class ElasticState(NamedTuple):
    """The state of every block's mixer, loop by loop."""

    turns: tuple[tuple[Any, ...], ...]


def even_steps(loops: int, full: int) -> tuple[int, ...]:
    """A trajectory of `loops` steps as even as can be, in units of a full one's steps.

    >>> even_steps(3, 8)
    (3, 2, 3)
    """
    ends = [round(turn * full / loops) for turn in range(loops + 1)]
    return tuple(after - before for before, after in pairwise(ends))


def drawn_steps(full: int, *, generator: torch.Generator) -> tuple[int, ...]:
    """A trajectory shorter than the full one: first how many steps it has, then where they end, uniformly.

    >>> sum(drawn_steps(8, generator=torch.Generator().manual_seed(0)))
    8
    """
    device = generator.device
    loops = int(torch.randint(1, full, (), generator=generator, device=device))
    inner = torch.randperm(full - 1, generator=generator, device=device)[: loops - 1].sort().values + 1
    ends = [0, *inner.tolist(), full]
    return tuple(after - before for before, after in pairwise(ends))


class ElasticBackbone(nn.Module):
    """Blocks looped along a trajectory; `steps` is the one in use, the full one unless set otherwise.

    >>> config = ElasticConfig(backbone=BackboneConfig(pattern="softmax", width=8, num_heads=2), loops=4)
    >>> elastic = ElasticBackbone(config, generator=torch.Generator().manual_seed(0))
    >>> elastic.steps
    (1, 1, 1, 1)
    """

    def __init__(self, config: ElasticConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.steps = config, even_steps(config.loops, config.loops)
        width = config.width
        self.inner = Backbone(config.backbone, generator=generator)
        if self.inner.positions is not None or not all(isinstance(block, ResidualBlock) for block in self.inner.blocks):
            raise InputError(
                f"an elastic backbone loops pre-norm layers of a mixer and a feed-forward network without added "
                f"positions, not {config.backbone.pattern!r} with residual={config.backbone.residual!r} and "
                f"positions={config.backbone.positions!r}"
            )
        self.clock = Linear(4 * FREQUENCIES, width, generator=generator)
        self.modulations = nn.ModuleList(
            Linear(width, 4 * width, generator=generator, gain=0.0) for _ in self.inner.blocks
        )

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> ElasticState:
        """The state before any token."""
        turns = (self.inner.init_state(batch, device=device, dtype=dtype).layers for _ in self.steps)
        return ElasticState(tuple(turns))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: ElasticState
    ) -> tuple[Float[Tensor, "batch time width"], ElasticState]:
        """Run any number of further vectors along the trajectory."""
        after = []
        for told, before in zip(self._told(x, self.steps), state.turns, strict=True):
            states = []
            for block, factors, one in zip(self._blocks(), told, before, strict=True):
                x, turned = modulated_stream(block, x, factors, one)
                states.append(turned)
            after.append(tuple(states))
        return self.inner.norm(x), ElasticState(tuple(after))

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run a whole sequence along the trajectory and return the positions 0, every, 2 * every, ..."""
        return self.along(x, self.steps, segments=segments, every=every)

    def along(
        self,
        x: Float[Tensor, "batch time width"],
        steps: Sequence[int],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run a whole sequence along any trajectory, in units of the full one's steps."""
        for told in self._told(x, steps):
            for block, factors in zip(self._blocks(), told, strict=True):
                x = modulated(block, x, factors, segments=segments)
        return self.inner.norm(x[:, ::every])

    def lesson(self, x: Float[Tensor, "batch time width"], *, every: int, generator: torch.Generator) -> Lesson:
        """The full trajectory and a shorter one, with the price of their difference."""
        full = self.along(x, self.steps, every=every)
        config = self.config
        if not config.short and not config.consistency:
            return Lesson((full,), (1.0,))
        shorter = self.along(x, drawn_steps(config.loops, generator=generator), every=every)
        apart = config.consistency * (shorter - full.detach()).square().mean(-1)
        return Lesson((full, shorter), (1.0, config.short), apart)

    def _blocks(self) -> list[ResidualBlock]:
        return [block for block in self.inner.blocks if isinstance(block, ResidualBlock)]

    def _told(self, x: Tensor, steps: Sequence[int]) -> list[list[Factors]]:
        """The factors of every block at every loop."""
        found, before = [], 0
        for step in steps:
            numbers = (before, step) if self.config.conditioned else (0, 0)
            times = x.new_tensor(numbers) / self.config.loops
            before += step
            angles = times.unsqueeze(1) * math.pi * 2.0 ** torch.arange(FREQUENCIES, device=x.device)
            waves = torch.cat((angles.sin(), angles.cos()), 1).flatten().to(x.dtype)
            clock = F.silu(self.clock(waves.expand(x.shape[0], 1, -1)))
            found.append([Factors(*modulation(clock).chunk(4, -1)) for modulation in self.modulations])
        return found
