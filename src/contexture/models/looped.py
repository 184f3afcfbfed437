"""A backbone that runs its layers again and again with the same weights (Yang et al., 2023, arXiv:2311.12424).

    z_0 = 0;    z_k = backbone(z_{k-1} + e),  k = 1 .. loops        the input e enters at every turn
    without injection: z_0 = e;  z_k = backbone(z_{k-1})

The backbone ends with its norm, so that every z_k can be read. Training averages the loss over the last `window` turns
and sends gradients no further back than these.
e, z: [batch, time, width]. The state is one state of the layers for every turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.models.backbone import Backbone, BackboneConfig, BackboneState


@dataclass(frozen=True, kw_only=True)
class LoopedConfig:
    """The layers that are looped, how often, and over how many of the last turns a training loss is averaged."""

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(pattern="softmax"))
    loops: int = 12
    window: int = 5
    injection: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))
        if not 1 <= self.window <= self.loops:
            raise InputError(f"a window of {self.window} does not fit into {self.loops} loops: use 1 to {self.loops}")

    @property
    def width(self) -> int:
        """The width of the vectors."""
        return self.backbone.width


class LoopedState(NamedTuple):
    """The layers' state at every turn."""

    turns: tuple[BackboneState, ...]


class Lesson(NamedTuple):
    """What a training step scores: hidden vectors, how much the loss of each counts, and what is added to the loss."""

    hidden: tuple[Tensor, ...]
    weights: tuple[float, ...]
    penalty: Float[Tensor, "batch read"] | None = None


class LoopedBackbone(nn.Module):
    """A backbone applied `loops` times; the attribute may be set to another number after training.

    >>> config = LoopedConfig(backbone=BackboneConfig(pattern="softmax", width=8, num_heads=2), loops=3, window=2)
    >>> looped = LoopedBackbone(config, generator=torch.Generator().manual_seed(0))
    >>> looped(torch.ones(1, 4, 8)).shape, len(looped.read_outs(torch.ones(1, 4, 8), loops=6))
    (torch.Size([1, 4, 8]), 6)
    """

    def __init__(self, config: LoopedConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.loops = config, config.loops
        self.inner = Backbone(config.backbone, generator=generator)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> LoopedState:
        """The state before any token."""
        states = (self.inner.init_state(batch, device=device, dtype=dtype) for _ in range(self.loops))
        return LoopedState(tuple(states))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: LoopedState
    ) -> tuple[Float[Tensor, "batch time width"], LoopedState]:
        """Run any number of further vectors through all turns."""
        z, after = self._start(x), []
        for before in state.turns:
            z, turned = self.inner.stream(self._enter(z, x), before)
            after.append(turned)
        return z, LoopedState(tuple(after))

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run a whole sequence and return the positions 0, every, 2 * every, ..."""
        z = self._start(x)
        for turn in range(self.loops):
            stride = every if turn == self.loops - 1 else 1
            z = self.inner(self._enter(z, x), segments=segments, every=stride)
        return z

    def read_outs(
        self, x: Float[Tensor, "batch time width"], *, loops: int, every: int = 1
    ) -> list[Float[Tensor, "batch read width"]]:
        """What can be read after every turn, however many there were in training."""
        z, found = self._start(x), []
        for _ in range(loops):
            z = self.inner(self._enter(z, x))
            found.append(z[:, ::every])
        return found

    def lesson(self, x: Float[Tensor, "batch time width"], *, every: int, generator: torch.Generator) -> Lesson:
        """The last turns, each with the same weight; no gradient goes further back."""
        window, z, found = self.config.window, self._start(x), []
        with torch.no_grad():
            for _ in range(self.loops - window):
                z = self.inner(self._enter(z, x))
        for _ in range(window):
            z = self.inner(self._enter(z, x))
            found.append(z[:, ::every])
        return Lesson(tuple(found), (1 / window,) * window)

    def _start(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) if self.config.injection else x

    def _enter(self, z: Tensor, x: Tensor) -> Tensor:
        return z + x if self.config.injection else z
