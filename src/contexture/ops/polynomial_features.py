"""The monomials of a vector up to a degree, weighted so that their products are powers of a product of vectors.

    phi(x).phi(y) = sum_{i <= 2} a_i (x.y)^i,    phi(x) = (r_0, r_1 x_1, .., r_2 x_1^2, r_2 sqrt(2) x_1 x_2, ..)

with a_i = r_i^2; a_i = 1 / i! makes it the beginning of exp(x.y) (ATLAS, arXiv:2505.23735).

x: [..., size]; phi: [..., (size + 1)(size + 2) / 2].
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

DEGREE = 2


def num_features(size: int) -> int:
    """How many monomials of degree at most 2 there are in `size` variables.

    >>> [num_features(size) for size in (1, 2, 9)]
    [3, 6, 55]
    """
    return math.comb(size + DEGREE, DEGREE)


def quadratic_features(
    x: Float[Tensor, "*lead size"],
) -> tuple[Float[Tensor, "*lead 1"], Float[Tensor, "*lead size"], Float[Tensor, "*lead pairs"]]:
    """The monomials of degree 0, 1 and 2, so that the products of each with those of another vector are powers.

    >>> [part.tolist() for part in quadratic_features(torch.tensor([1.0, 3.0]))][:2]
    [[1.0], [1.0, 3.0]]
    """
    size = x.shape[-1]
    rows, columns = torch.triu_indices(size, size, device=x.device).unbind(0)
    weight = torch.where(rows == columns, 1.0, math.sqrt(2)).to(x.dtype)
    return torch.ones_like(x[..., :1]), x, x[..., rows] * x[..., columns] * weight
