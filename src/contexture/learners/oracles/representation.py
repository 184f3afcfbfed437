r"""A fixed representation: a random network whose weights are the same in every episode.

    Phi_0(x) = x;    Phi_l(x) = c r(B_l Phi_{l-1}(x)),  r(z) = max(z, z / 100),  c^2 = 2 / (1 + 1e-4)

Each B_l is orthogonal, drawn once for a seed, and c keeps the size of what comes in. Guo, Hu, Mei, Wang, Xiong,
Savarese, Bai 2023, arXiv:2310.10616.
Shapes: x [..., features]; Phi(x) [..., features].
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.randomness import generator

SLOPE = 0.01


@lru_cache(maxsize=64)
def rotation(size: int, layer: int, seed: int) -> Float[Tensor, "size size"]:
    """The orthogonal matrix of a layer, fp64."""
    source = generator("representation", seed, layer)
    q, r = torch.linalg.qr(torch.randn(size, size, generator=source, dtype=torch.float64))
    turned: Tensor = q * r.diagonal().sign()
    return turned


@dataclass(frozen=True, kw_only=True, slots=True)
class Representation:
    """Layers of orthogonal maps and leaky rectifiers; with none of them, x itself.

    >>> Representation(num_layers=0)(torch.tensor([2.0, -1.0]))
    tensor([ 2., -1.])
    """

    num_layers: int = 2
    seed: int = 0

    def __call__(self, x: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows features"]:
        """As many columns as x has."""
        scale = math.sqrt(2 / (1 + SLOPE**2))
        for layer in range(self.num_layers):
            turned = x @ rotation(x.shape[-1], layer, self.seed).to(x).mT
            x = scale * torch.nn.functional.leaky_relu(turned, SLOPE)
        return x
