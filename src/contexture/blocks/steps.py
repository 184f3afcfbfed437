"""A pre-norm block of any steps, each a causal mixer or a feed-forward network around a shortcut.

    x <- x + step_n(norm_n(x))    for n = 1, 2, ..

x: [batch, time, width]. With one mixer and one feed-forward network it is `contexture.blocks.residual`. The state is
the tuple of the mixers' states.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.mixer import Mixer


class MixerStep(nn.Module):
    """A norm and a mixer."""

    def __init__(self, norm: nn.Module, mixer: Mixer) -> None:
        super().__init__()
        self.norm, self.mixer = norm, mixer


class FeedForwardStep(nn.Module):
    """A norm and a feed-forward network."""

    def __init__(self, norm: nn.Module, feed_forward: nn.Module) -> None:
        super().__init__()
        self.norm, self.feed_forward = norm, feed_forward


class Steps(nn.ModuleList):
    """The steps in order."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[MixerStep | FeedForwardStep]:
            """Iterate over the steps."""


class StepsBlock(nn.Module):
    """Mixers and feed-forward networks one after the other."""

    def __init__(self, steps: Iterable[MixerStep | FeedForwardStep]) -> None:
        super().__init__()
        self.steps = Steps(steps)
        mixers = [n for n, step in enumerate(self.steps) if isinstance(step, MixerStep)]
        self.last_mixer = max(mixers, default=-1)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> tuple[Any, ...]:
        """The mixers' states before any token."""
        mixers = (step.mixer for step in self.steps if isinstance(step, MixerStep))
        return tuple(mixer.init_state(batch, device=device, dtype=dtype) for mixer in mixers)

    def stream(self, x: Float[Tensor, "batch time width"], state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Continue from a state."""
        before, after = iter(state), []
        for step in self.steps:
            if isinstance(step, MixerStep):
                out, one = step.mixer.stream(step.norm(x), next(before))
                after.append(one)
            else:
                out = step.feed_forward(step.norm(x))
            x = x + out
        return x, tuple(after)

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run over a whole sequence, and return the positions 0, every, 2 * every, ..."""
        if self.last_mixer < 0:
            x = x[:, ::every]
        for n, step in enumerate(self.steps):
            if isinstance(step, MixerStep):
                out = step.mixer(step.norm(x), segments=segments)
                if n == self.last_mixer and every > 1:
                    x, out = x[:, ::every], out[:, ::every]
            else:
                out = step.feed_forward(step.norm(x))
            x = x + out
        return x
