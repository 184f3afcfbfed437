"""Matrices made nearly orthogonal by five Newton-Schulz iterations, as the optimiser Muon does (Jordan et al., 2024).

    X_0 = G / |G|;    X <- a X + (b A + c A A) X,  A = X X',    (a, b, c) = (3.4445, -4.7750, 2.0315)

|G| is the Frobenius norm. The coefficients are Muon's: they bring the singular values near 1 fast, to between 0.7 and
1.2 rather than to 1, where they were not all but zero beside the largest.

G, X: [..., rows, columns]; A is taken on the shorter side.
"""

import torch
from jaxtyping import Float
from torch import Tensor

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-6


def orthogonalised(matrix: Float[Tensor, "*lead rows columns"]) -> Float[Tensor, "*lead rows columns"]:
    """The matrix with its singular values brought near 1; a matrix of zeros stays so.

    >>> orthogonalised(torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double()).round(decimals=2).tolist()
    [[0.72, 0.0], [0.0, 1.12]]
    """
    a, b, c = COEFFICIENTS
    x = matrix * (matrix.square().sum((-2, -1), keepdim=True) + SMALLEST_NORM**2).rsqrt()
    x = x.reshape(-1, *matrix.shape[-2:])
    tall = matrix.shape[-2] > matrix.shape[-1]
    for _ in range(ITERATIONS):
        gram = x.mT @ x if tall else x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, *((x, polynomial) if tall else (polynomial, x)), beta=a)
    return x.view(matrix.shape)
