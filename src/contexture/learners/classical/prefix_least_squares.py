r"""Least squares for every prefix of an episode, by orthogonal transformations only.

    w_n = argmin_w sum_{t<=n} (y_t - x_t . w)^2,  of minimum norm where that is not unique

Rows are written in an orthonormal basis Q that grows with the examples (x_t = Q' c_t), so that the coordinates of the
first rows already are a lower triangle L; each further row is rotated into L from the last column to the first by
Givens rotations. Then w_n = Q' a_n with L_n a_n = z_n, one substitution per prefix. X'X is never formed: its condition
number is the square of X's, which ruins the prefixes near n = d.

A direction that no row has reached yet keeps a vanishing diagonal: its coordinate of the solution is then exactly zero,
which is the minimum norm. A row that depends on earlier ones gets no coordinate of its own.

Shapes: inside this file the batch comes last, [.., batch], so that one rotation of all episodes is one contiguous pass.
Sources: Golub and Van Loan, Matrix Computations, sections 5.1.8 and 6.5; Gentleman (1973) for the row-wise rotations.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

VANISHING = 1e-150
"""The diagonal of a direction without data: its square is still a normal number, and any data dwarfs it."""


class RotatedTriangle:
    """The triangle L and right-hand side z with |L w - z|^2 = sum of squared residuals + constant, updated in place.

    Row j holds z_j, L_j0, .., L_jj at [j, 0 .. j + 1]. Two copies take turns, because a rotation reads the old row
    after writing the new one.
    """

    def __init__(self, diagonal: Float[Tensor, "size batch"]) -> None:
        size, batch = diagonal.shape
        self._copies = [diagonal.new_zeros(size, size + 1, batch) for _ in range(2)]
        self._rows = [[copy[j, : j + 2] for j in range(size)] for copy in self._copies]
        self._current = 0
        self.diagonal.copy_(diagonal.T)

    @property
    def diagonal(self) -> Float[Tensor, "batch size"]:
        """A view of L_jj."""
        return self._copies[self._current].diagonal(offset=1)

    def place(self, triangle: Float[Tensor, "size size batch"], target: Float[Tensor, "size batch"]) -> None:
        """Start from a known lower triangle and right-hand side."""
        current = self._copies[self._current]
        current[:, 0] = target
        current[:, 1:] = triangle

    def scale(self, factor: float) -> None:
        """Multiply all equations by a factor."""
        self._copies[self._current].mul_(factor)

    def add(self, row: Float[Tensor, "size batch"], target: Float[Tensor, " batch"]) -> None:
        """Rotate one more equation row . w = target into the triangle, in every episode."""
        rest = torch.cat([target[None], row])
        old_rows, new_rows = self._rows[self._current], self._rows[1 - self._current]
        for j in range(row.shape[0] - 1, -1, -1):
            old, new, value = old_rows[j], new_rows[j], rest[j + 1]
            norm = torch.hypot(old[j + 1], value)
            cosine = old[j + 1] / norm
            sine = value / norm
            torch.mul(old, cosine, out=new).addcmul_(rest[: j + 2], sine)
            rest[: j + 1].mul_(cosine).addcmul_(old[: j + 1], sine, value=-1)
        self._current = 1 - self._current

    def solution(self) -> Float[Tensor, "size batch"]:
        """The solution of L a = z, by substitution."""
        current = self._copies[self._current]
        left = current[:, 0].clone()
        for j in range(left.shape[0]):
            left[j] /= current[j, j + 1]
            left[j + 1 :].addcmul_(current[j + 1 :, j + 1], left[j], value=-1)
        return left

    def leverage(self, query: Float[Tensor, "size batch"]) -> Float[Tensor, " batch"]:
        """q' (L'L)^-1 q = |L'^-1 q|^2: the variance of the prediction at q in units of the noise variance."""
        current = self._copies[self._current]
        left = query.clone()
        for j in range(left.shape[0] - 1, -1, -1):
            left[j] /= current[j, j + 1]
            left[:j].addcmul_(current[j, 1 : j + 1], left[j], value=-1)
        return left.square_().sum(0)


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
    smallest = _smallest_direction(x)
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


def _smallest_direction(x: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch time"]:
    """The length below which what a row adds to the earlier ones counts as rounding: relative to the longest so far."""
    longest: Tensor = x.norm(dim=-1).cummax(dim=1).values
    return longest * (32 * x.shape[2] * torch.finfo(x.dtype).eps)


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
    weights = x.new_zeros(x.shape[0], x.shape[1] + 1, x.shape[2])
    if x.numel() == 0:
        return weights
    basis, coordinates, regular = _leading_basis(x)
    if bool(regular.all()):
        return _from_leading_rows(basis, coordinates, y)
    weights[regular] = _from_leading_rows(basis[regular], coordinates[regular], y[regular])
    basis, coordinates = growing_basis(x[~regular])
    triangle = RotatedTriangle(x.new_full((basis.shape[1], basis.shape[0]), VANISHING))
    weights[~regular, 1:] = _rotate(triangle, coordinates, y[~regular]) @ basis
    return weights


def prefix_ridge(
    x: Float[Tensor, "batch time features"],
    y: Float[Tensor, "batch time"],
    *,
    penalty: float,
    forgetting: float = 1.0,
    queries: Float[Tensor, "batch time features"] | None = None,
) -> tuple[Float[Tensor, "batch prefixes features"], Float[Tensor, "batch time"]]:
    """The weights minimising |y - X w|^2 + penalty |w|^2 on every prefix, 0 to time inclusive.

    With `forgetting` below one, all earlier terms (the penalty too) are multiplied by it at every example.
    With `queries`, also x' (X'X + penalty I)^-1 x of the query at t after the examples before t; else zeros.
    """
    columns, targets = x.permute(1, 2, 0).contiguous(), y.T.contiguous()
    asked = None if queries is None else queries.permute(1, 2, 0).contiguous()
    time, features, batch = columns.shape
    triangle = RotatedTriangle(x.new_full((features, batch), math.sqrt(penalty)))
    weights = x.new_zeros(time + 1, features, batch)
    leverage = x.new_zeros(time, batch)
    for t in range(time):
        if asked is not None:
            leverage[t] = triangle.leverage(asked[t])
        if forgetting < 1:
            triangle.scale(math.sqrt(forgetting))
        triangle.add(columns[t], targets[t])
        weights[t + 1] = triangle.solution()
    return weights.permute(2, 0, 1), leverage.T


def _leading_basis(x: Float[Tensor, "batch time features"]) -> tuple[Tensor, Tensor, Bool[Tensor, " batch"]]:
    """What `growing_basis` gives where the leading rows are independent (there `regular`), by one factorisation."""
    rank = min(x.shape[1:])
    basis, triangle = torch.linalg.qr(x[:, :rank].mT)
    coordinates = torch.cat([triangle.mT, x[:, rank:] @ basis], dim=1)
    lengths = triangle.diagonal(dim1=1, dim2=2).abs()
    return basis.mT, coordinates, (lengths > _smallest_direction(x[:, :rank])).all(dim=1)


def _from_leading_rows(
    basis: Float[Tensor, "batch rank features"], coordinates: Float[Tensor, "batch time rank"], y: Tensor
) -> Float[Tensor, "batch prefixes features"]:
    """The weights of every prefix where the first `rank` rows of the coordinates are a triangle already."""
    batch, rank, features = basis.shape
    time = y.shape[1]
    triangle = coordinates[:, :rank]
    start = torch.linalg.solve_triangular(triangle, y[:, :rank, None], upper=False)
    weights = basis.new_zeros(batch, time + 1, features)
    torch.cumsum(start * basis, dim=1, out=weights[:, 1 : rank + 1])
    if time > rank:
        rotated = RotatedTriangle(basis.new_ones(rank, batch))
        rotated.place(triangle.permute(1, 2, 0), y[:, :rank].T)
        weights[:, rank + 1 :] = _rotate(rotated, coordinates[:, rank:], y[:, rank:]) @ basis
    return weights


def _rotate(
    triangle: RotatedTriangle, rows: Float[Tensor, "batch time size"], y: Float[Tensor, "batch time"]
) -> Float[Tensor, "batch time size"]:
    """The solutions after each further row."""
    columns, targets = rows.permute(1, 2, 0).contiguous(), y.T.contiguous()
    solutions = torch.empty_like(columns)
    for t in range(columns.shape[0]):
        triangle.add(columns[t], targets[t])
        solutions[t] = triangle.solution()
    return solutions.permute(2, 0, 1)
