"""The decoder backbone: residual blocks whose mixers follow a pattern, and a last norm.

    x = x + positions;    x = block_L(... block_1(x));    y = norm(x)

x, y: [batch, time, width]. A pattern names the mixer of every layer: "softmax*4", "(delta-rule softmax)*2", or the
tuple ("delta-rule", "softmax"). The state is the positions seen and the tuple of the layers' states.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture import discovery
from contexture.blocks.feed_forward import FEED_FORWARD
from contexture.blocks.mixer import Mixer
from contexture.blocks.residual import MixerBlock, ResidualBlock
from contexture.errors import InputError
from contexture.leaves.embedding import Embedding
from contexture.leaves.norm import NORMS
from contexture.ops.segments import positions as positions_of

_GROUP = re.compile(r"\(([^()]*)\)(?:\*(\d+))?")


def layers(pattern: str | tuple[str, ...]) -> tuple[str, ...]:
    """The mixer's name for every layer of a pattern.

    >>> layers("(delta-rule softmax*2)*2 softmax")
    ('delta-rule', 'softmax', 'softmax', 'delta-rule', 'softmax', 'softmax', 'softmax')
    """
    if not isinstance(pattern, str):
        return tuple(pattern)
    text, found = pattern, 1
    while found:
        text, found = _GROUP.subn(lambda group: " ".join([_repeat(group[1])] * int(group[2] or 1)), text)
    names = tuple(_repeat(text).split())
    if not names or any(mark in name for name in names for mark in "()"):
        raise InputError(f"the pattern {pattern!r} cannot be read: write it as 'softmax*4' or '(delta-rule softmax)*2'")
    return names


def _repeat(text: str) -> str:
    """Write out "name*3" as three names."""
    return re.sub(r"(\S+?)\*(\d+)(?=\s|$)", lambda item: " ".join([item[1]] * int(item[2])), text)


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The shape of a backbone.

    settings: keyword arguments of a mixer's constructor, by the mixer's name in the pattern. positions: what is added
    to the first layer's input; a mixer may know positions by itself, as softmax attention does unless told otherwise.
    `max_length` bounds learned positions alone. feed_forward: the network after every mixer, or "none". expansion: its
    hidden width over the width.
    """

    pattern: str | tuple[str, ...] = "softmax*4"
    width: int = 64
    num_heads: int = 4
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    feed_forward: Literal["gelu", "relu", "swiglu", "none"] = "gelu"
    expansion: float = 4.0
    norm: Literal["layer", "rms"] = "layer"
    positions: Literal["none", "learned"] = "none"
    max_length: int = 256

    def __post_init__(self) -> None:
        if isinstance(self.pattern, list):
            object.__setattr__(self, "pattern", tuple(self.pattern))
        strays = set(self.settings) - set(layers(self.pattern))
        if strays:
            raise InputError(
                f"there are settings for {sorted(strays)}, which the pattern {self.pattern!r} does not use"
            )


class BackboneState(NamedTuple):
    """The next position, int64 [batch], and the state of every layer's mixer."""

    positions: Tensor
    layers: tuple[Any, ...]


def _mixer(name: str, config: BackboneConfig, *, generator: torch.Generator, gain: float) -> Mixer:
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
    built = mixer(config.width, num_heads=config.num_heads, generator=generator, **settings)
    return cast(Mixer, built)


def _block(name: str, config: BackboneConfig, *, generator: torch.Generator, gain: float) -> ResidualBlock | MixerBlock:
    mixer, norm, width = _mixer(name, config, generator=generator, gain=gain), NORMS[config.norm], config.width
    if config.feed_forward == "none":
        return MixerBlock(mixer=mixer, norm=norm(width, device=generator.device))
    return ResidualBlock(
        mixer=mixer,
        feed_forward=FEED_FORWARD[config.feed_forward](
            width, hidden=round(config.expansion * width), generator=generator, gain=gain
        ),
        norms=(norm(width, device=generator.device), norm(width, device=generator.device)),
    )


class Stack(nn.ModuleList):
    """The residual blocks in order."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[ResidualBlock | MixerBlock]:
            """Iterate over the blocks."""


class Backbone(nn.Module):
    """A stack of residual blocks over vectors; it knows nothing of what they stand for.

    What every block adds is scaled at initialisation by 1/sqrt(2 * layers), as in GPT-2.
    """

    def __init__(self, config: BackboneConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        names, width = layers(config.pattern), config.width
        gain = (2 * len(names)) ** -0.5
        self.positions = (
            Embedding(config.max_length, width, generator=generator, std=0.3) if config.positions == "learned" else None
        )
        self.blocks = Stack(_block(name, config, generator=generator, gain=gain) for name in names)
        self.norm = NORMS[config.norm](width, device=generator.device)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, *, segments: Tensor | None = None, every: int = 1) -> Tensor:
            """Run a whole sequence."""

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> BackboneState:
        """The state before any token."""
        states = tuple(block.init_state(batch, device=device, dtype=dtype) for block in self.blocks)
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
        states = []
        for block, before in zip(self.blocks, state.layers, strict=True):
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
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            x = block(x, segments=segments, every=every if layer == last else 1)
        return self.norm(x)

    def _reach(self, length: int) -> None:
        longest = self.config.max_length
        if length > longest:
            raise InputError(
                f"a sequence of {length} tokens is longer than the {longest} learned positions: "
                "train with a larger max_length, or with positions='none'"
            )
