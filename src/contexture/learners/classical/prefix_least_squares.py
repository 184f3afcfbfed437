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

    `columns` holds z_j, L_j0, .., L_jj at [0 .. j + 1, j] with L_jj > 0, a further row the same. The rotation that
    makes the further row's entry v under a pivot p vanish is three shears, which need no memory of their own:

        upper += t lower,  lower -= s upper,  upper += t lower;    s = v / |(p, v)|,  t = v / (|(p, v)| + p)

    Views are cut once, as cutting costs as much as computing.
    """

    def __init__(self, columns: Float[Tensor, "columns size batch"]) -> None:
        self._columns, self._left = columns, columns.new_empty(columns.shape[1:])
        self._lower = columns.new_empty(columns.shape[0], columns.shape[2])
        self._cuts = [_Cut(self._columns, self._lower, self._left, j) for j in range(columns.shape[1])]

    @classmethod
    def diagonal(cls, value: float, *, size: int, like: Tensor) -> "RotatedTriangle":
        """`value` times the identity and targets of zero, for as many episodes as `like` has."""
        columns = like.new_zeros(size + 1, size, len(like))
        columns[1:].diagonal().fill_(value)
        return cls(columns)

    def scale(self, factor: float) -> None:
        """Multiply all equations by a factor."""
        self._columns.mul_(factor)

    def add(self, row: Float[Tensor, "size batch"], target: Float[Tensor, " batch"]) -> None:
        """Rotate one more equation row . w = target into the triangle, in every episode."""
        self._lower[0], self._lower[1:] = target, row
        for cut in reversed(self._cuts):
            norm = torch.hypot(cut.pivot, cut.value)
            sine, shear = cut.value / norm, cut.value / (norm + cut.pivot)
            cut.upper.addcmul_(cut.lower, shear)
            cut.lower.addcmul_(cut.upper, sine, value=-1)
            cut.upper.addcmul_(cut.lower, shear)

    def solution(self, out: Float[Tensor, "size batch"]) -> None:
        """Write the solution of L a = z, by substitution."""
        self._left.copy_(self._columns[0])
        for cut in self._cuts:
            cut.here.div_(cut.pivot)
            cut.after.addcmul_(cut.column, cut.here, value=-1)
        out.copy_(self._left)

    def leverage(self, query: Float[Tensor, "size batch"]) -> Float[Tensor, " batch"]:
        """q' (L'L)^-1 q = |L'^-1 q|^2: the variance of the prediction at q in units of the noise variance."""
        self._left.copy_(query)
        for cut in reversed(self._cuts):
            cut.here.div_(cut.pivot)
            cut.before.addcmul_(cut.upper[1:-1], cut.here, value=-1)
        return self._left.square().sum(0)


class _Cut:
    """Views of what the step at row j of a triangle reads and writes."""

    __slots__ = ("after", "before", "column", "here", "lower", "pivot", "upper", "value")

    def __init__(self, columns: Tensor, lower: Tensor, left: Tensor, j: int) -> None:
        self.pivot, self.value = columns[j + 1, j], lower[j + 1]
        self.upper, self.lower = columns[: j + 2, j], lower[: j + 2]
        self.column, self.here, self.before, self.after = columns[j + 1, j + 1 :], left[j], left[:j], left[j + 1 :]


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


def _rounding(x: Float[Tensor, "batch time features"]) -> float:
    """The share of the longest row below which what a row adds to the earlier ones counts as rounding."""
    return 32 * x.shape[2] * torch.finfo(x.dtype).eps


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
    if x.numel() == 0:
        return x.new_zeros(x.shape[0], x.shape[1] + 1, x.shape[2])
    basis, triangle, regular = _leading_basis(x)
    if bool(regular.all()):
        return _from_leading_rows(x, y, basis, triangle)
    weights = x.new_zeros(x.shape[0], x.shape[1] + 1, x.shape[2])
    weights[regular] = _from_leading_rows(x[regular], y[regular], basis[regular], triangle[regular])
    basis, coordinates = growing_basis(x[~regular])
    rotated = RotatedTriangle.diagonal(VANISHING, size=basis.shape[1], like=basis)
    solutions = _rotate(rotated, batch_last(coordinates), y[~regular].T)
    weights[~regular, 1:] = batch_first(solutions) @ basis
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
    columns, targets = batch_last(x), y.T.contiguous()
    asked = None if queries is None else batch_last(queries)
    time, features, batch = columns.shape
    triangle = RotatedTriangle.diagonal(math.sqrt(penalty), size=features, like=x)
    weights = x.new_zeros(time + 1, features, batch)
    leverage = x.new_zeros(time, batch)
    for t in range(time):
        if asked is not None:
            leverage[t] = triangle.leverage(asked[t])
        if forgetting < 1:
            triangle.scale(math.sqrt(forgetting))
        triangle.add(columns[t], targets[t])
        triangle.solution(weights[t + 1])
    return batch_first(weights), leverage.T


def _leading_basis(x: Float[Tensor, "batch time features"]) -> tuple[Tensor, Tensor, Bool[Tensor, " batch"]]:
    """The leading rows as Q R with Q [batch, features, rank], and where they are independent (`regular`).

    Below its diagonal, what is returned as R holds other numbers.
    """
    rank = min(x.shape[1:])
    reflectors, scales = torch.geqrf(x[:, :rank].mT)
    triangle = reflectors[:, :rank]
    shortest = triangle.diagonal(dim1=1, dim2=2).abs().amin(1)
    regular = shortest > _rounding(x) * x[:, :rank].norm(dim=(1, 2))
    return torch.linalg.householder_product(reflectors, scales), triangle, regular


def _from_leading_rows(
    x: Tensor, y: Tensor, basis: Float[Tensor, "batch features rank"], triangle: Float[Tensor, "batch rank rank"]
) -> Float[Tensor, "batch prefixes features"]:
    """The weights of every prefix where the first `rank` rows are Q R: there x_t . w = y_t is R' (Q' w) = y."""
    batch, features, rank = basis.shape
    signs = triangle.diagonal(dim1=1, dim2=2).sign()
    triangle, target = triangle * signs[:, None], y[:, :rank] * signs
    start = torch.linalg.solve_triangular(triangle.mT, target[..., None], upper=False)
    weights = basis.new_empty(batch, y.shape[1] + 1, features)
    weights[:, 0] = 0
    torch.mul(start, basis.mT, out=weights[:, 1 : rank + 1]).cumsum_(dim=1)
    if y.shape[1] > rank:
        rotated = RotatedTriangle(batch_last(torch.cat([target[:, None], triangle], dim=1)))
        solutions = _rotate(rotated, batch_last(x[:, rank:] @ basis), y[:, rank:].T)
        weights[:, rank + 1 :] = batch_first(solutions) @ basis.mT
    return weights


def _rotate(
    triangle: RotatedTriangle, rows: Float[Tensor, "time size batch"], y: Float[Tensor, "time batch"]
) -> Float[Tensor, "time size batch"]:
    """The solutions after each further row, in the rows' own memory."""
    for row, target in zip(rows.unbind(), y.unbind(), strict=True):
        triangle.add(row, target)
        triangle.solution(row)
    return rows


def batch_last(values: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "rows columns batch"]:
    """The batch moved to the end, as one transposed copy."""
    return values.flatten(1).T.contiguous().view(*values.shape[1:], len(values))


def batch_first(values: Float[Tensor, "rows columns batch"]) -> Float[Tensor, "batch rows columns"]:
    """The batch moved to the front, as one transposed copy."""
    return values.flatten(0, 1).T.contiguous().view(values.shape[2], *values.shape[:2])
