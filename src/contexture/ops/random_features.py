"""Positive random features of the exponential kernel (Choromanski et al., 2020, arXiv:2009.14794, FAVOR+).

    exp(q.k) = E [ f_w(q) f_w(k) ],    f_w(x) = exp(w.x - |x|^2 / 2),    w ~ N(0, I)

The mean over w drawn orthogonal to each other, each still N(0, I), has a lower variance than over independent ones.

In the ratio of two sums over keys, a factor that all keys share cancels, and so does one of each query. A query is
therefore scaled by its own largest feature. The keys' largest feature would look ahead and change from token to token;
but w.k - |k|^2 / 2 <= |w|^2 / 2 whatever the key, so that a constant known beforehand keeps them from overflowing. No
feature falls below exp(-60): a sum of weights is never zero, and a key that is lost so weighs less than rounding.

exponents: [..., features]; directions: [features, dim].
"""

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST = 60.0
"""exp(60) = 1e26, so that products of two features and their sums over time stay finite in fp32."""


def orthogonal_directions(
    num_features: int, dim: int, *, generator: torch.Generator
) -> Float[Tensor, "num_features dim"]:
    """Directions from N(0, I), orthogonal to each other in every block of `dim`.

    >>> w = orthogonal_directions(2, 2, generator=torch.Generator().manual_seed(0))
    >>> abs(float(w[0] @ w[1])) < 1e-6
    True
    """
    blocks = -(-num_features // dim)
    drawn = torch.randn(2, blocks, dim, dim, generator=generator, device=generator.device, dtype=torch.float64)
    rotations, triangles = torch.linalg.qr(drawn[0])
    # The signs make the factorisation unique, and the rotations uniform.
    rotations = rotations * torch.diagonal(triangles, dim1=-2, dim2=-1).sign().unsqueeze(-2)
    directions: Tensor = rotations.mT * torch.linalg.vector_norm(drawn[1], dim=-1, keepdim=True)
    return directions.flatten(0, 1)[:num_features].to(torch.float32)


def query_features(exponents: Float[Tensor, "*lead features"]) -> Float[Tensor, "*lead features"]:
    """The exponentials, scaled so that the largest of each query is one.

    >>> query_features(torch.tensor([7.0, 7.0])).tolist()
    [1.0, 1.0]
    """
    return _exponentials(exponents - exponents.detach().amax(-1, keepdim=True))


def key_features(exponents: Float[Tensor, "*lead features"], *, bound: Tensor) -> Float[Tensor, "*lead features"]:
    """The exponentials, scaled by one constant where `bound`, which no exponent exceeds, would let them overflow."""
    return _exponentials(exponents - (bound.detach() - LARGEST).clamp(min=0.0))


def _exponentials(exponents: Tensor) -> Tensor:
    return torch.exp(exponents.clamp(min=-LARGEST))
