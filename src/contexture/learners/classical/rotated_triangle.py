r"""A triangle into which further equations are rotated, for a batch of episodes at once, and what follows from it.

    |L w - z|^2 + constant = sum of squared residuals

A further row is rotated into L from the last column to the first. Givens rotations lose nothing where X'X would square
the condition number: every prefix is solved as well as if its rows were factored anew. Starting from sqrt(penalty) I
gives ridge regression, from a vanishing diagonal least squares.

Shapes: in this file the batch comes last, [.., batch], so that one rotation of all episodes is one contiguous pass.
Sources: Golub and Van Loan, Matrix Computations, sections 5.1.8 and 6.5; Gentleman (1973) for rotating row by row.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


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


def rotate(
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
