"""The gated residual block: a norm before the step, and a gate for the sum.

    x <- g(x, relu(step(norm(x))))        g: `contexture.blocks.gates`

It leaves a path from input to output on which there is nothing but gates; with a plain sum it is the reordered
block TrXL-I of Parisotto et al. (2019, arXiv:1910.06764), with gates their GTrXL. The ReLU keeps two linear maps in
succession apart. Steps: a causal mixer, then a feed-forward network. x: [batch, time, width].
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.blocks.gates import Gate
from contexture.blocks.mixer import Mixer


class GatedBlock(nn.Module):
    """One causal mixer and one feed-forward network, each behind a norm, rectified, and joined by a gate."""

    def __init__(
        self, *, mixer: Mixer, feed_forward: nn.Module, norms: tuple[nn.Module, nn.Module], gates: tuple[Gate, Gate]
    ) -> None:
        super().__init__()
        self.mixer_norm, self.feed_forward_norm = norms
        self.mixer_gate, self.feed_forward_gate = gates
        self.mixer, self.feed_forward = mixer, feed_forward

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Any:
        """The mixer's state before any token."""
        return self.mixer.init_state(batch, device=device, dtype=dtype)

    def stream(self, x: Float[Tensor, "batch time width"], state: Any) -> tuple[Tensor, Any]:
        """Continue from a state."""
        mixed, state = self.mixer.stream(self.mixer_norm(x), state)
        return self._join(x, mixed), state

    def forward(
        self,
        x: Float[Tensor, "batch time width"],
        *,
        segments: Int[Tensor, "batch time"] | None = None,
        every: int = 1,
    ) -> Float[Tensor, "batch read width"]:
        """Run over a whole sequence, and return the positions 0, every, 2 * every, ..."""
        mixed = self.mixer(self.mixer_norm(x), segments=segments)
        return self._join(x[:, ::every], mixed[:, ::every])

    def _join(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = self.mixer_gate(x, mixed.relu())
        return self.feed_forward_gate(x, self.feed_forward(self.feed_forward_norm(x)).relu())
