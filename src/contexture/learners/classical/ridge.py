"""Ridge regression: w_n = argmin |y - X w|^2 + penalty |w|^2 = (X'X + penalty I)^-1 X'y.

Hoerl and Kennard (1970). Solved as the least squares of [X; sqrt(penalty) I], by rotations: X'X is never formed.
Shapes: x [batch, time, features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.classical.rotated_triangle import prefix_ridge
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class Ridge(LinearLearner):
    """Least squares with a fixed penalty on the squared length of the weights.

    The penalty stands beside the *sum* of squared residuals, so that sigma^2 / tau^2 makes it the posterior mean under
    noise variance sigma^2 and prior variance tau^2. InputError unless it is positive (use `OLS` for none).

    >>> x, y = torch.tensor([[[2.0]]], dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64)
    >>> Ridge(penalty=2.0).weights(x, y)
    tensor([[1.]], dtype=torch.float64)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="fixed-ridge",
        summary="Least squares with a fixed penalty on the squared length of the weights.",
        paper="Hoerl and Kennard, Ridge regression: biased estimation for nonorthogonal problems",
        year=1970,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise InputError(f"ridge needs a positive penalty, but it is {self.penalty}: use ols for none")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""
        return prefix_ridge(x, y, penalty=self.penalty)[0]

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The weights after all of the examples, by the singular values of X."""
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        return torch.einsum("btr,bt,br,brd->bd", left, y, values / (values.square() + self.penalty), right)
