"""Frequencies from a mixture of Gaussians per head, whose means, scales and weights are learned.

    w_hcm = mean_hc + exp(scale_hc) * noise_cm,    u_hcm(x) = w_hcm . x_h + log(softmax(logits_h)_c) / 2

x: [K * batch, time, heads, dim]; mean, scale: [heads, components, dim]; logits: [heads, components]; noise:
[components, features, dim], drawn once and never trained. In a cohort each carries a leading axis K.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.leaf import Leaf, normal


class Spectrum(Leaf):
    """Learned projections of every head, and half the logarithm of their share in the mixture.

    At the start the scales are one, the shares equal and the means drawn from N(0, 1 / dim).
    """

    def __init__(
        self, num_heads: int, noise: Float[Tensor, "components features dim"], *, generator: torch.Generator
    ) -> None:
        super().__init__()
        components, _, dim = noise.shape
        self.mean = normal(num_heads, components, dim, std=1 / math.sqrt(dim), generator=generator)
        self.scale = nn.Parameter(torch.zeros(num_heads, components, dim, device=generator.device))
        self.logits = nn.Parameter(torch.zeros(num_heads, components, device=generator.device))
        self.noise = nn.Parameter(noise, requires_grad=False)

    def frequencies(self) -> Float[Tensor, "*members heads components_features dim"]:
        """Every head's projections, component after component."""
        spread = self.scale.exp().unsqueeze(-2) * self.noise.unsqueeze(-4)
        return (self.mean.unsqueeze(-2) + spread).flatten(-3, -2)

    def forward(
        self, x: Float[Tensor, "batch time heads dim"]
    ) -> Float[Tensor, "batch time heads components_features"]:
        """Project every head of x."""
        rows = self.unfold(x, trailing=2).transpose(1, 2)
        shares = torch.log_softmax(self.logits, -1) / 2
        shares = shares.repeat_interleave(self.noise.shape[-2], dim=-1).unsqueeze(-2)
        projected = rows @ self.frequencies().mT + shares
        return projected.transpose(1, 2).reshape(*x.shape[:-1], -1)
