"""A causal depthwise convolution over time with a short kernel.

x: [K * batch, time, channels]; weight: [channels, taps], or [K, channels, taps] in a cohort; the state is the last
taps - 1 inputs, [K * batch, taps - 1, channels].
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.leaves.leaf import Leaf, normal
from contexture.ops.short_convolution import short_convolution


class Conv(Leaf):
    """One filter of `taps` weights per channel, drawn from N(0, 1 / taps); the last tap is the present."""

    def __init__(self, channels: int, *, taps: int = 4, generator: torch.Generator) -> None:
        super().__init__()
        self.channels, self.taps = channels, taps
        self.weight = normal(channels, taps, std=1 / math.sqrt(taps), generator=generator)

    def init_state(
        self, batch: int, *, device: torch.device | str, dtype: torch.dtype
    ) -> Float[Tensor, "batch past channels"]:
        """No inputs yet: zeros."""
        return torch.zeros(batch, self.taps - 1, self.channels, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time channels"], state: Float[Tensor, "batch past channels"]
    ) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch past channels"]]:
        """Convolve further inputs."""
        out, after = short_convolution(x, self._filters(), initial_state=state)
        return out, after.to(state.dtype)

    def forward(
        self, x: Float[Tensor, "batch time channels"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time channels"]:
        """Convolve a whole sequence."""
        return short_convolution(x, self._filters(), segments=segments)[0]

    def _filters(self) -> Tensor:
        return self.weight if self.members else self.weight.unsqueeze(0)
