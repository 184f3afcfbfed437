"""Pre-norm residual blocks (Xiong et al., 2020, arXiv:2002.04745).

    x <- x + mixer(norm(x));    x <- x + feed_forward(norm(x))      ResidualBlock
    x <- x + mixer(norm(x))                                         MixerBlock

x: [batch, time, width].
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.mixer import Mixer


class ResidualBlock(nn.Module):
    """One causal mixer and one feed-forward network, each behind a norm and around a shortcut."""

    def __init__(self, *, mixer: Mixer, feed_forward: nn.Module, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.mixer_norm, self.feed_forward_norm = norms
        self.mixer, self.feed_forward = mixer, feed_forward

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """The mixer's state before any token."""
        return self.mixer.init_state(batch, device=device, dtype=dtype)

    def stream(self, x: Float[Tensor, "batch time width"], state: Any) -> tuple[Tensor, Any]:
        """Continue from a state."""
        mixed, state = self.mixer.stream(self.mixer_norm(x), state)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x)), state

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run over a whole sequence, and return the positions 0, every, 2 * every, ..."""
        mixed = self.mixer(self.mixer_norm(x), segments=segments)
        x = x + mixed if every == 1 else x[:, ::every] + mixed[:, ::every]
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out


class MixerBlock(nn.Module):
    """One causal mixer behind a norm and around a shortcut: nothing in it works on a position by itself."""

    def __init__(self, *, mixer: Mixer, norm: nn.Module) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = norm, mixer

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """The mixer's state before any token."""
        return self.mixer.init_state(batch, device=device, dtype=dtype)

    def stream(self, x: Float[Tensor, "batch time width"], state: Any) -> tuple[Tensor, Any]:
        """Continue from a state."""
        mixed, state = self.mixer.stream(self.mixer_norm(x), state)
        return x + mixed, state

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run over a whole sequence, and return the positions 0, every, 2 * every, ..."""
        mixed = self.mixer(self.mixer_norm(x), segments=segments)
        return x + mixed if every == 1 else x[:, ::every] + mixed[:, ::every]
