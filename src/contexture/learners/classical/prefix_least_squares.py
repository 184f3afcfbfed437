r"""Least squares for every prefix of an episode, of minimum norm where a prefix does not determine the weights:

    w_n = argmin_w sum_{t<=n} (y_t - x_t . w)^2

The first d rows are X_d = R'Q' with Q orthonormal, and each adds a direction of its own: w_n = w_{n-1} + a_n q_n with
R'a = y. Every later row adds one too: with the leverages F = X_> X_d^-1, K = I + F F' = C C' and G = C^-1 F,

    w_n = w_{n-1} + e_n X_d^-1 g_n,   e = C^-1 (y_> - X_> w_d),

since for n rows K's factor and its inverse are the leading blocks of these. So the weights of all prefixes are running
sums. X'X is never formed; but K squares the condition of X_d, and where that is bad, as the largest leverage tells, the
sums are refined by their residuals, or the later rows are rotated into the triangle one by one, which loses nothing.

Where the first rows depend on each other, Gram-Schmidt says which of them add a direction. The others get no coordinate
of their own, and a direction that no row has reached keeps a vanishing diagonal: its coordinate is exactly zero.

Shapes: x [batch, time, features]; y [batch, time]; weights [batch, prefixes, features], prefixes 0 to time inclusive.
Sources: Golub and Van Loan, Matrix Computations, sections 5.2, 5.5, 6.5; Bjorck (1996), Numerical methods for least
squares problems, sections 2.9 and 3.1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contexture.learners.classical.rotated_triangle import RotatedTriangle, batch_first, batch_last, rotate
from contexture.learners.inputs import blocks

VANISHING = 1e-150
"""The diagonal of a direction without data: its square is still a normal number, and any data dwarfs it."""
SAFE, REFINABLE = 1e5, 1e9
"""Leverages up to which the running sums keep 11 digits, and up to which refining them once brings those back."""
LATER_ROWS = 3
"""Running sums pay up to this many later rows per feature, as they cost the cube of it."""
BUFFERS = 20
"""About how many tensors of the episodes' size are alive at once; blocks of episodes keep them in the cache."""


def prefix_least_squares(
    x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
) -> Float[Tensor, "batch prefixes features"]:
    """The minimum-norm least-squares weights of every prefix, 0 to time inclusive.

    >>> x = torch.tensor([[[3.0, 4.0], [3.0, 4.0], [0.0, 1.0]]], dtype=torch.float64)
    >>> prefix_least_squares(x, torch.tensor([[5.0, 10.0, 1.0]], dtype=torch.float64))[0].round(decimals=6)
    tensor([[0.0000, 0.0000],
            [0.6000, 0.8000],
            [0.9000, 1.2000],
            [1.1667, 1.0000]], dtype=torch.float64)
    """
    weights = x.new_empty(x.shape[0], x.shape[1] + 1, x.shape[2])
    weights[:, 0] = 0
    if x.shape[1] and x.shape[2]:
        for block in blocks(x.shape[0], BUFFERS * x.shape[1] * x.shape[2]):
            _solve(x[block], y[block], weights[block])
    return weights


def _solve(x: Tensor, y: Tensor, weights: Float[Tensor, "batch prefixes features"]) -> None:
    """Write the weights of every prefix but the empty one, whose zeros stand there already."""
    start = _first_rows(x)
    rank, later = start.rank, x.shape[1] - start.rank
    solved = torch.linalg.solve_triangular(start.triangle, y[:, :rank, None], upper=False)
    torch.mul(solved, start.basis.mT, out=weights[:, 1 : rank + 1])
    apart = start.regular & (later > 0)
    if 0 < later <= LATER_ROWS * rank:
        sums = _later_rows(x, y, start, solved)
        torch.mul(sums.steps, sums.directions, out=weights[:, rank + 1 :])
        weights.cumsum_(dim=1)
        sums.refine(x, y, weights[:, rank + 1 :], chosen=apart & (sums.leverage > SAFE))
        apart &= ~(sums.leverage <= REFINABLE)
    else:
        weights[:, : rank + 1].cumsum_(dim=1)
    if bool(apart.any()):
        weights[apart, rank + 1 :] = _rotated(x[apart], y[apart], start.select(apart))
    if not bool(start.regular.all()):
        weights[~start.regular, 1:] = _from_any_rows(x[~start.regular], y[~start.regular])


@dataclass(frozen=True, slots=True, eq=False)
class _FirstRows:
    """The first `rank` rows as R'Q', and in which episodes they are independent."""

    triangle: Float[Tensor, "batch rank rank"]
    """R', lower; above its diagonal stand other numbers."""
    basis: Float[Tensor, "batch features rank"]
    regular: Bool[Tensor, " batch"]

    @property
    def rank(self) -> int:
        return self.basis.shape[2]

    def select(self, chosen: Bool[Tensor, " batch"]) -> "_FirstRows":
        return _FirstRows(self.triangle[chosen], self.basis[chosen], self.regular[chosen])


def _first_rows(x: Float[Tensor, "batch time features"]) -> _FirstRows:
    rank = min(x.shape[1:])
    reflectors, scales = torch.geqrf(x[:, :rank].mT)
    triangle = reflectors[:, :rank].mT
    shortest = triangle.diagonal(dim1=1, dim2=2).abs().amin(1)
    regular = shortest > _rounding(x) * x[:, :rank].norm(dim=(1, 2))
    return _FirstRows(triangle, torch.linalg.householder_product(reflectors, scales), regular)


def _rounding(x: Float[Tensor, "batch time features"]) -> float:
    """The share of the longest row below which what a row adds to the earlier ones counts as rounding."""
    return 32 * x.shape[2] * torch.finfo(x.dtype).eps


@dataclass(frozen=True, slots=True, eq=False)
class _LaterRows:
    """What the later rows add to the weights: steps e times directions X_d^-1 g, and how far they reach."""

    inverse: Float[Tensor, "batch features features"]
    """X_d^-1."""
    directions: Float[Tensor, "batch later features"]
    steps: Float[Tensor, "batch later 1"]
    leverage: Float[Tensor, " batch"]

    def refine(self, x: Tensor, y: Tensor, weights: Tensor, *, chosen: Bool[Tensor, " batch"]) -> None:
        """Add (X_n'X_n)^-1 X_n'(y - X_n w) to the weights of the chosen episodes, in place.

        The inverse for n rows is X_d^-1 X_d'^-1 less the sum of u u' over the directions u so far.
        """
        if not bool(chosen.any()):
            return
        x, y, refined, inverse, directions = (of[chosen] for of in (x, y, weights, self.inverse, self.directions))
        count, time = weights.shape[1], x.shape[1]
        shown = x.new_ones(count, time).tril(time - count)
        gradient = ((y[:, None] - refined @ x.mT) * shown) @ x
        along = (gradient @ directions.mT).tril()
        weights[chosen] = refined + (gradient @ inverse) @ inverse.mT - along @ directions


def _later_rows(x: Tensor, y: Tensor, start: _FirstRows, solved: Float[Tensor, "batch rank 1"]) -> _LaterRows:
    inverse = torch.linalg.solve_triangular(start.triangle, start.basis, upper=False, left=False)
    later = x[:, start.rank :]
    leverages = later @ inverse
    joint = leverages @ leverages.mT
    diagonal = joint.diagonal(dim1=1, dim2=2)
    largest = diagonal.amax(1)
    diagonal.add_(1)
    factor = torch.linalg.cholesky_ex(joint).L
    surprise = y[:, start.rank :, None] - later @ (start.basis @ solved)
    steps = torch.linalg.solve_triangular(factor, surprise, upper=False)
    directions = torch.linalg.solve_triangular(factor, leverages, upper=False) @ inverse.mT
    return _LaterRows(inverse, directions, steps, largest)


def _rotated(x: Tensor, y: Tensor, start: _FirstRows) -> Float[Tensor, "batch later features"]:
    """The weights after every later row, each rotated into the triangle of the first ones."""
    signs = start.triangle.diagonal(dim1=1, dim2=2).sign()[:, None]
    columns = torch.cat([y[:, None, : start.rank], start.triangle.mT], dim=1) * signs
    rows = batch_last(x[:, start.rank :] @ start.basis)
    return batch_first(rotate(RotatedTriangle(batch_last(columns)), rows, y[:, start.rank :].T)) @ start.basis.mT


def _from_any_rows(x: Tensor, y: Tensor) -> Float[Tensor, "batch time features"]:
    """The weights after every row, whatever the rows are."""
    basis, coordinates = growing_basis(x)
    triangle = RotatedTriangle.diagonal(VANISHING, size=basis.shape[1], like=basis)
    return batch_first(rotate(triangle, batch_last(coordinates), y.T)) @ basis


def growing_basis(
    x: Float[Tensor, "batch time features"],
) -> tuple[Float[Tensor, "batch rank features"], Float[Tensor, "batch time rank"]]:
    """An orthonormal basis of the rows in their order, and the rows' coordinates in it; rank = min(time, features).

    Gram-Schmidt with one reorthogonalisation. A row within rounding of the span of earlier rows adds no direction (its
    coordinates beyond are exactly zero); basis rows that were never reached are zero.
    """
    batch, time, features = x.shape
    rank = min(time, features)
    basis = x.new_zeros(batch, rank, features)
    coordinates = x.new_zeros(batch, time, rank)
    reached = torch.zeros(batch, dtype=torch.int64, device=x.device)
    episodes = torch.arange(batch, device=x.device)
    smallest = _rounding(x) * x.norm(dim=-1).cummax(dim=1).values
    for t in range(time):
        rest = x[:, t]
        for _ in range(2):
            along = torch.einsum("brd,bd->br", basis, rest)
            rest = rest - torch.einsum("brd,br->bd", basis, along)
            coordinates[:, t] += along
        length = rest.norm(dim=-1)
        fresh = (length > smallest[:, t]) & (reached < rank)
        chosen, slot = episodes[fresh], reached[fresh]
        basis[chosen, slot] = rest[fresh] / length[fresh, None]
        coordinates[chosen, t, slot] = length[fresh]
        reached += fresh
    return basis, coordinates
