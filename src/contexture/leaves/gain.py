"""A learned factor per feature: y = g x.

x: [K * batch, ..., size]; weight: [size], or [K, size] in a cohort.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.leaf import Leaf


class Gain(Leaf):
    """A learned factor for every entry of the last axis, all starting at `initial`."""

    def __init__(self, size: int, *, initial: float = 1.0, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.full((size,), initial, device=device))

    def forward(self, x: Float[Tensor, "*lead size"]) -> Float[Tensor, "*lead size"]:
        """Scale the last axis."""
        if self.members is None:
            return x * self.weight
        return (self.unfold(x, trailing=1) * self.weight.unsqueeze(1)).view(x.shape)
