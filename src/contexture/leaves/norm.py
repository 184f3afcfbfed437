"""Normalisation of the last axis: layer norm (Ba et al., 2016) and root-mean-square norm (Zhang & Sennrich, 2019).

layer norm: y = g (x - mean x) / sqrt(var x + e) + b;  RMS norm: y = g x / sqrt(mean x^2 + e).
x: [K * batch, ..., width]; weight, bias: [width], or [K, width] in a cohort.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.leaf import Leaf
from contexture.ops.unit import unit


class LayerNorm(Leaf):
    """Layer norm with a learned gain and offset."""

    def __init__(self, width: int, *, epsilon: float = 1e-5, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.width, self.epsilon = width, epsilon
        self.weight = nn.Parameter(torch.ones(width, device=device))
        self.bias = nn.Parameter(torch.zeros(width, device=device))

    def forward(self, x: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        """Normalise the last axis, in the dtype of the gain."""
        x = x.to(self.weight.dtype)
        if self.members is None:
            return F.layer_norm(x, (self.width,), self.weight, self.bias, self.epsilon)
        rows = self.unfold(F.layer_norm(x, (self.width,), eps=self.epsilon), trailing=1)
        return torch.addcmul(self.bias.unsqueeze(1), rows, self.weight.unsqueeze(1)).view(x.shape)


class RMSNorm(Leaf):
    """Root-mean-square norm with a learned gain."""

    def __init__(self, width: int, *, epsilon: float = 1e-6, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.width, self.epsilon = width, epsilon
        self.weight = nn.Parameter(torch.ones(width, device=device))

    def forward(self, x: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        """Normalise the last axis, in the dtype of the gain."""
        x = unit(x.to(self.weight.dtype), epsilon=self.width * self.epsilon)
        gain = self.weight * math.sqrt(self.width)
        if self.members is None:
            return x * gain
        return (self.unfold(x, trailing=1) * gain.unsqueeze(1)).view(x.shape)


NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"layer": LayerNorm, "rms": RMSNorm}
