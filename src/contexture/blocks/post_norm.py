"""The post-norm residual block (Vaswani et al., 2017, arXiv:1706.03762).

    x <- norm(x + mixer(x));    x <- norm(x + feed_forward(x))

x: [batch, time, width].
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.mixer import Mixer


class PostNormBlock(nn.Module):
    """One causal mixer and one feed-forward network, each around a shortcut and before a norm."""

    def __init__(self, *, mixer: Mixer, feed_forward: nn.Module, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.mixer_norm, self.feed_forward_norm = norms
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
        x = self.mixer_norm(x + mixed)
        out: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return out
