"""Ordinary least squares: w_n = argmin |y - X w|^2 over the first n examples, the shortest w where many attain it.

Shapes: x [batch, time, features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.linear import LinearLearner
from contexture.learners.classical.prefix_least_squares import prefix_least_squares
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class OLS(LinearLearner):
    """Least squares, of minimum norm below d examples and wherever else the rows do not determine the weights.

    >>> x, y = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[5.0]])
    >>> OLS().weights(x, y)
    tensor([[0.6000, 0.8000]])
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="ols",
        summary="Least squares, of minimum norm where the examples do not determine the weights.",
        paper="Gauss, Theoria combinationis observationum",
        year=1823,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""
        return prefix_least_squares(x, y)

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The weights after all of the examples, by the singular values of X."""
        if x.shape[1] == 0:
            return x.new_zeros(x.shape[0], x.shape[2])
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        smallest = values[:, :1] * (max(x.shape[1:]) * torch.finfo(x.dtype).eps)
        inverse = torch.where(values > smallest, 1 / values, 0)
        return torch.einsum("btr,bt,br,brd->bd", left, y, inverse, right)
