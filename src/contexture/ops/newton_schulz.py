"""Matrices made nearly orthogonal by five Newton-Schulz iterations, as the optimiser Muon does (Jordan et al., 2024).

    X_0 = G / |G|;    X <- a X + (b A + c A A) X,  A = X X',    (a, b, c) = (3.4445, -4.7750, 2.0315)

|G| is the Frobenius norm. The coefficients are Muon's: they bring the singular values near 1 fast, to between 0.7 and
1.2 rather than to 1, where they were not all but zero beside the largest.

G, X: [..., rows, columns]; A is taken on the shorter side.

The gradient of one iteration, with P = b A + c A A and D the gradient of its result:

    E = D X' + X D';    F = b E + c (E A + A E);    dX = a D + P D + F X

which is four products, since E A is A E transposed, where automatic differentiation takes six.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-6
CACHED = 2**16
"""Numbers of one of the four or five arrays of matrices that an iteration works on in a core's cache."""


def orthogonalised(matrix: Float[Tensor, "*lead rows columns"]) -> Float[Tensor, "*lead rows columns"]:
    """The matrix with its singular values brought near 1; a matrix of zeros stays so.

    >>> orthogonalised(torch.tensor([[3.0, 0.0], [0.0, 4.0]]).double()).round(decimals=2).tolist()
    [[0.72, 0.0], [0.0, 1.12]]
    """
    x = _scaled(matrix, _shrink(matrix))
    for _ in range(ITERATIONS):
        x = _iterated(x)
    return _shaped(x, matrix)


def orthogonalised_lean(matrix: Float[Tensor, "*lead rows columns"]) -> Float[Tensor, "*lead rows columns"]:
    """The same, keeping for the backward what comes before each iteration alone; it cannot be differentiated twice.

    On a CPU as many matrices go through all iterations together as stay in a core's cache.

    >>> x = torch.eye(2).requires_grad_()
    >>> torch.equal(orthogonalised_lean(x), orthogonalised(x))
    True
    """
    matrices = matrix.reshape(-1, *matrix.shape[-2:])
    together = max(1, CACHED // matrix.shape[-2:].numel()) if matrix.device.type == "cpu" else len(matrices)
    done = [_Orthogonalised.apply(part) for part in matrices.split(together)]  # type: ignore[no-untyped-call]
    return (torch.cat(done) if len(done) > 1 else done[0]).view(matrix.shape)


class _Orthogonalised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        shrink = _shrink(matrix)
        befores = [_scaled(matrix, shrink)]
        for _ in range(ITERATIONS - 1):
            befores.append(_iterated(befores[-1]))
        ctx.save_for_backward(shrink, *befores)
        return _shaped(_iterated(befores[-1]), matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        shrink, *befores = ctx.saved_tensors
        moved = _wide(gradient.reshape(-1, *gradient.shape[-2:])).contiguous()
        for x in reversed(befores):
            moved = _gradient(x, moved)
        # x = G / |G|: what lies along x changes the norm alone.
        moved = torch.addcmul(moved, x, (moved * x).sum((-2, -1), keepdim=True), value=-1)
        before: Tensor = _shaped(moved, gradient) * shrink
        return before


def _shrink(matrix: Tensor) -> Tensor:
    return (matrix.square().sum((-2, -1), keepdim=True) + SMALLEST_NORM**2).rsqrt()


def _scaled(matrix: Tensor, shrink: Tensor) -> Tensor:
    """Of norm one, no taller than wide: [lead, shorter, longer]."""
    return _wide((matrix * shrink).reshape(-1, *matrix.shape[-2:]))


def _wide(x: Tensor) -> Tensor:
    return x.mT if x.shape[-2] > x.shape[-1] else x


def _shaped(x: Tensor, matrix: Tensor) -> Tensor:
    return (x.mT if matrix.shape[-2] > matrix.shape[-1] else x).reshape(matrix.shape)


def _polynomial(x: Tensor) -> tuple[Tensor, Tensor]:
    """A and P."""
    _, b, c = COEFFICIENTS
    gram = x @ x.mT
    return gram, torch.baddbmm(gram, gram, gram, beta=b, alpha=c)


def _iterated(x: Tensor) -> Tensor:
    return torch.baddbmm(x, _polynomial(x)[1], x, beta=COEFFICIENTS[0])


def _gradient(x: Tensor, after: Tensor) -> Tensor:
    """The gradient before one iteration from that after it."""
    a, b, c = COEFFICIENTS
    gram, polynomial = _polynomial(x)
    crossed = after @ x.mT
    crossed = crossed + crossed.mT
    half = torch.baddbmm(crossed, crossed, gram, beta=0.5 * b, alpha=c)
    out = torch.baddbmm(after, polynomial, after, beta=a)
    return torch.baddbmm(out, half + half.mT, x)
