"""The block of HybridNorm (Zhuo et al., 2025, arXiv:2503.04598): no norm before the mixer, which normalises its
queries, keys and values itself, and post-norm around the feed-forward network.

    x <- x + mixer(x);    h = norm(x);    x <- h + feed_forward(h)

x, h: [batch, time, width]. The norm stands after the mixer's shortcut, so that what enters the network and what passes
it by are both normalised.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.mixer import Mixer


class HybridNormBlock(nn.Module):
    """One causal mixer and one feed-forward network with a single norm between them."""

    def __init__(self, *, mixer: Mixer, feed_forward: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.mixer, self.feed_forward = mixer, feed_forward

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """The mixer's state before any token."""
        return self.mixer.init_state(batch, device=device, dtype=dtype)

    def stream(self, x: Float[Tensor, "batch time width"], state: Any) -> tuple[Tensor, Any]:
        """Continue from a state."""
        mixed, state = self.mixer.stream(x, state)
        return self._leave(x, mixed), state

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run over a whole sequence, and return the positions 0, every, 2 * every, ..."""
        mixed = self.mixer(x, segments=segments)
        return self._leave(x[:, ::every], mixed[:, ::every])

    def _leave(self, x: Tensor, mixed: Tensor) -> Tensor:
        h = self.norm(x + mixed)
        out: Tensor = h + self.feed_forward(h)
        return out
