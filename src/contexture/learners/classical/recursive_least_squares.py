r"""Recursive least squares with exponential forgetting, for a target that drifts:

    w_n = argmin_w  sum_{t<=n} forgetting^(n-t) (y_t - x_t . w)^2 + penalty forgetting^n |w|^2

Its classical recursion updates the inverse of the weighted X'X (Plackett 1950); here the triangle of the weighted X is
rotated instead (Haykin, Adaptive filter theory, QR-RLS), which does not lose definiteness as that recursion does.
Shapes: x [batch, time, features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.classical.rotated_triangle import prefix_ridge
from contexture.protocols import LearnerCard


@dataclass(frozen=True, kw_only=True, slots=True)
class RecursiveLeastSquares(LinearLearner):
    """Ridge regression in which an example's weight falls by `forgetting` with every further one.

    InputError unless 0 < forgetting <= 1 and the penalty is positive.

    >>> import torch
    >>> x, y = torch.ones(1, 2, 1, dtype=torch.float64), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    >>> round(RecursiveLeastSquares(forgetting=0.5, penalty=1e-9).weights(x, y).item(), 4)
    0.6667
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="recursive-least-squares",
        summary="Least squares that forgets: an example's weight falls with every further one.",
        paper="Plackett, Some theorems in least squares",
        year=1950,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"column-order"}),
    )

    forgetting: float = 0.99
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.forgetting <= 1 and self.penalty > 0):
            raise InputError(
                "recursive-least-squares needs a forgetting factor in (0, 1] and a positive penalty, "
                f"but they are {self.forgetting} and {self.penalty}"
            )

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""
        return prefix_ridge(x, y, penalty=self.penalty, forgetting=self.forgetting)[0]
