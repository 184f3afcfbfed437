"""The decoder backbone: residual blocks whose mixers follow a pattern, and a last norm.

    x = x + positions;    x = block_L(... block_1(x));    y = norm(x)

x, y: [batch, time, width]. A pattern names the mixer of every layer: "softmax*4", "(delta-rule softmax)*2", or the
tuple ("delta-rule", "softmax"); `contexture.models.pattern` has the rest of what it can say. The state is the positions
seen and the tuple of the layers' states.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture import discovery
from contexture.blocks.feed_forward import FEED_FORWARD
from contexture.blocks.hybrid_norm import HybridNormBlock
from contexture.blocks.mixer import Mixer
from contexture.blocks.parallel import Parallel
from contexture.blocks.post_norm import PostNormBlock
from contexture.blocks.residual import ResidualBlock
from contexture.blocks.shared import Block, SharedCall
from contexture.blocks.spectral import reparametrise
from contexture.blocks.steps import FeedForwardStep, MixerStep, StepsBlock
from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.norm import NORMS
from contexture.models import pattern as patterns
from contexture.models.pattern import Layer, layers
from contexture.ops.segments import positions as positions_of


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The shape of a backbone.

    settings: keyword arguments of a mixer's constructor, by the mixer's name in the pattern. positions: what is added
    to the first layer's input; a mixer may know positions by itself, as softmax attention does unless told otherwise.
    `max_length` bounds learned positions, the model's and those that its mixers learn. expansion: hidden width of the
    feed-forward network over the width. placement: where the norms stand, see `contexture.blocks`; other than "pre"
    asks for layers of one mixer and one feed-forward network. maps: "spectral" gives every linear map inside the
    backbone a learned spectral norm.
    """

    pattern: str | tuple[str, ...] = "softmax*4"
    width: int = 64
    num_heads: int = 4
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    feed_forward: Literal["gelu", "relu", "swiglu"] = "gelu"
    expansion: float = 4.0
    norm: Literal["layer", "rms"] = "layer"
    placement: Literal["pre", "post", "hybrid"] = "pre"
    maps: Literal["plain", "spectral"] = "plain"
    positions: Literal["none", "learned"] = "none"
    max_length: int = 256

    def __post_init__(self) -> None:
        if isinstance(self.pattern, list):
            object.__setattr__(self, "pattern", tuple(self.pattern))
        used = frozenset().union(*(patterns.read(layer).mixers for layer in layers(self.pattern)))
        strays = set(self.settings) - used
        if strays:
            raise InputError(
                f"there are settings for {sorted(strays)}, which the pattern {self.pattern!r} does not use"
            )


class BackboneState(NamedTuple):
    """The next position, int64 [batch], and the state of every layer's mixer."""

    positions: Tensor
    layers: tuple[Any, ...]


def _mixer(name: str, config: BackboneConfig, width: int, *, generator: torch.Generator, gain: float) -> Mixer:
    mixer = discovery.find(name, "mixers")
    if not mixer.card.causal:
        raise InputError(f"the mixer {name!r} sees whole sets, so a causal backbone cannot use it")
    settings = dict(config.settings.get(name, {}))
    known = inspect.signature(mixer).parameters
    strays = set(settings) - set(known)
    if strays:
        options = sorted(set(known) - {"width", "num_heads", "generator", "gain"})
        raise InputError(
            f"the mixer {name!r} has no setting {sorted(strays)}: there are {', '.join(options) or 'none'}"
        )
    if "gain" in known:
        settings.setdefault("gain", gain)
    if config.positions == "learned" and "max_length" in known:
        settings.setdefault("max_length", config.max_length)
    built = mixer(width, num_heads=config.num_heads, generator=generator, **settings)
    return cast(Mixer, built)


def _block(layer: Layer, config: BackboneConfig, width: int, *, generator: torch.Generator, gain: float) -> Block:
    """The steps of one layer; the usual two in the usual block."""
    steps: list[MixerStep | FeedForwardStep] = []
    for names in layer.steps:
        if names == (patterns.FEED_FORWARD,):
            hidden = round(config.expansion * width)
            network = FEED_FORWARD[config.feed_forward](width, hidden=hidden, generator=generator, gain=gain)
            steps.append(FeedForwardStep(NORMS[config.norm](width, device=generator.device), network))
            continue
        mixers = [_mixer(name, config, width, generator=generator, gain=gain) for name in names]
        mixer = mixers[0] if len(mixers) == 1 else Parallel(mixers, width=width, gain=gain, device=generator.device)
        steps.append(MixerStep(NORMS[config.norm](width, device=generator.device), mixer))
    match steps:
        case [MixerStep() as first, FeedForwardStep() as second]:
            return _usual(first, second, config.placement)
        case _ if config.placement == "pre":
            return StepsBlock(steps)
        case _:
            raise InputError(
                f"norms stand {config.placement!r} in layers of one mixer and one feed-forward network alone: use "
                "placement='pre' for this pattern"
            )


def _usual(first: MixerStep, second: FeedForwardStep, placement: str) -> Block:
    """The block of a mixer and a feed-forward network, with its norms where `placement` says."""
    mixer, network = first.mixer, second.feed_forward
    match placement:
        case "pre":
            return ResidualBlock(mixer=mixer, feed_forward=network, norms=(first.norm, second.norm))
        case "post":
            return PostNormBlock(mixer=mixer, feed_forward=network, norms=(first.norm, second.norm))
        case "hybrid":
            return HybridNormBlock(mixer=mixer, feed_forward=network, norm=second.norm)
        case _:
            raise InputError(f"norms cannot stand {placement!r}: there are pre, post, hybrid")


class Stack(nn.ModuleList):
    """The layers in order."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Block | SharedCall]:
            """Iterate over the layers."""


class Backbone(nn.Module):
    """A stack of residual blocks over vectors; it knows nothing of what they stand for.

    What every step (mixer or feed-forward network) adds is scaled at initialisation by 1/sqrt(steps), as in GPT-2.
    """

    def __init__(self, config: BackboneConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width, names = config.width, layers(config.pattern)
        read = [patterns.read(name) for name in names]
        gain = sum(len(layer.steps) for layer in read) ** -0.5
        self.positions = (
            Embedding(config.max_length, width, generator=generator, std=0.3) if config.positions == "learned" else None
        )
        shared = list(dict.fromkeys(name for name, layer in zip(names, read, strict=True) if layer.shared))
        self.blocks = Stack(
            SharedCall(width, index=shared.index(name), generator=generator, gain=gain)
            if layer.shared
            else _block(layer, config, width, generator=generator, gain=gain)
            for name, layer in zip(names, read, strict=True)
        )
        self.shared = nn.ModuleList(
            _block(patterns.read(name), config, 2 * width, generator=generator, gain=1.0) for name in shared
        )
        self.norm = NORMS[config.norm](width, device=generator.device)
        if config.maps == "spectral":
            reparametrise(self)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, *, segments: Tensor | None = None, every: int = 1) -> Tensor:
            """Run a whole sequence."""

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> BackboneState:
        """The state before any token."""
        blocks = (self._shared(block) if isinstance(block, SharedCall) else block for block in self.blocks)
        states = tuple(block.init_state(batch, device=device, dtype=dtype) for block in blocks)
        return BackboneState(torch.zeros(batch, dtype=torch.int64, device=device), states)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: BackboneState
    ) -> tuple[Float[Tensor, "batch time width"], BackboneState]:
        """Run any number of further vectors."""
        steps = state.positions.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        if self.positions is not None:
            if not torch.compiler.is_compiling():
                self._reach(int(state.positions.max()) + x.shape[1])
            x = x + self.positions(steps)
        states, start = [], x
        for block, before in zip(self.blocks, state.layers, strict=True):
            if isinstance(block, SharedCall):
                x, after = block.stream(x, before, start=start, block=self._shared(block))
            else:
                x, after = block.stream(x, before)
            states.append(after)
        return self.norm(x), BackboneState(state.positions + x.shape[1], tuple(states))

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run a whole sequence and return the positions 0, every, 2 * every, ...

        The last feed-forward network runs at those alone. InputError if the sequence is longer than learned positions.
        """
        if self.positions is not None:
            if segments is None:
                self._reach(x.shape[1])
                steps = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
            else:
                steps = positions_of(segments)
            x = x + self.positions(steps)
        last, start = len(self.blocks) - 1, x
        for layer, block in enumerate(self.blocks):
            stride = every if layer == last else 1
            if isinstance(block, SharedCall):
                x = block(x, start=start, block=self._shared(block), segments=segments, every=stride)
            else:
                x = block(x, segments=segments, every=stride)
        return self.norm(x)

    def _shared(self, call: SharedCall) -> Block:
        return cast(Block, self.shared[call.index])

    def _reach(self, length: int) -> None:
        longest = self.config.max_length
        if length > longest:
            raise InputError(
                f"a sequence of {length} tokens is longer than the {longest} learned positions: "
                "train with a larger max_length, or with positions='none'"
            )
