r"""Kernel ridge regression with a Gaussian kernel whose length and penalty have the smallest leave-one-out error:

    f(x) = k(x, X) (K + penalty I)^-1 y

chosen from a grid, anew for every prefix. Saunders, Gammerman and Vovk (1998), Ridge regression learning algorithm in
dual variables. Shapes: x [batch, time, features]; y [batch, time]; scores [grid, batch, prefixes].
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.kernels import KernelGrid, plus_diagonal
from contexture.learners.classical.prefix_gaussian import PrefixGaussian, chosen, first_best
from contexture.learners.inputs import blocks, numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, slots=True)
class KernelRidge:
    """Ridge regression in the space of a Gaussian kernel; length and penalty by leave-one-out error.

    The grid's noise-to-signal ratio is the penalty. Expects columns of roughly unit scale.

    >>> from contexture.protocols import Schema
    >>> x = torch.tensor([[[0.0], [1.0]]])
    >>> context = Pairs(x=x, y=torch.tensor([[1.0, 1.0]]), schema=Schema.numeric(1))
    >>> round(KernelRidge(KernelGrid((1.0,), (1.0,))).predict(context, x[:, :1]).mean.item(), 4)
    0.6163
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="kernel-ridge",
        summary="Ridge regression with a Gaussian kernel, length and penalty by leave-one-out error.",
        paper="Saunders, Gammerman and Vovk, Ridge regression learning algorithm in dual variables",
        year=1998,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    grid: KernelGrid = field(default_factory=KernelGrid)

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The mean of every query after all of the context."""
        queries = numeric(self.card, context.schema, queries)
        x, y = regression(self.card, context)
        mean = queries.new_empty(queries.shape[:2])
        for block in blocks(x.shape[0], len(self.grid) * x.shape[1] * (x.shape[1] + queries.shape[1])):
            gaussian = self._gaussian(x[block], y[block])
            index = first_best(-gaussian.left_out_error[..., -1])
            shared = self.grid.kernel(queries[block], x[block])
            weights = torch.linalg.solve_triangular(gaussian.factor.mT, gaussian.innovations[..., None], upper=True)
            means = (shared @ weights)[..., 0]
            mean[block] = chosen(means, index[:, None].expand(means.shape[1:]))
        return Prediction(mean=mean)

    def prequential(self, episodes: Pairs) -> Prediction:
        """The mean at every t from the examples before it, length and penalty chosen from these too."""
        x, y = regression(self.card, episodes)
        mean = torch.empty_like(y)
        for block in blocks(x.shape[0], len(self.grid) * x.shape[1] ** 2):
            gaussian = self._gaussian(x[block], y[block])
            mean[block] = chosen(gaussian.mean, first_best(-gaussian.left_out_error[..., :-1]))
        return Prediction(mean=mean)

    def _gaussian(self, x: Tensor, y: Tensor) -> PrefixGaussian:
        return PrefixGaussian.of(plus_diagonal(self.grid.kernel(x, x), self.grid.noise(x)), y)
