r"""Gaussian processes with a Gaussian kernel whose length and noise have the highest evidence on a grid.

    regression:      f ~ GP(0, s k),  y = f(x) + N(0, s noise);  the scale s is integrated out
    classification:  one class against the rest, p(class | f) = 1 / (1 + exp(-f)), Laplace's approximation

chosen anew for every prefix. Rasmussen and Williams (2006), Gaussian processes for machine learning, chapters 2, 3, 5.
Shapes: x [batch, time, features]; y [batch, time]; scores [grid, batch, prefixes].
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.kernels import KernelGrid, plus_diagonal
from contexture.learners.classical.laplace import class_probabilities, prefix_class_probabilities
from contexture.learners.classical.prefix_gaussian import PrefixGaussian, chosen, first_best, prefix_scale
from contexture.learners.inputs import blocks, classification, numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianProcess:
    """A Gaussian process whose hyper-parameters have the highest evidence; mean and variance, or probabilities.

    Expects columns (and the targets of a regression) of roughly unit scale. `grid` holds lengths and noise-to-signal
    ratios; `signals` the standard deviations of f among which a classification chooses, with the grid's lengths.

    >>> from contexture.protocols import Schema
    >>> x = torch.linspace(-1, 1, 9)[None, :, None]
    >>> context = Pairs(x=x, y=torch.sin(3 * x[..., 0]), schema=Schema.numeric(1))
    >>> seen = GaussianProcess().predict(context, torch.tensor([[[0.3]]]))
    >>> round(seen.mean.item(), 2), round(float(torch.sin(torch.tensor(0.9))), 2)
    (0.78, 0.78)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="gaussian-process",
        summary="A Gaussian process with a Gaussian kernel, its length and noise of highest evidence.",
        paper="Rasmussen and Williams, Gaussian processes for machine learning",
        year=2006,
        kind="classical",
        targets=frozenset({"regression", "classification"}),
        invariances=frozenset({"example-order", "column-order", "label-names"}),
    )

    grid: KernelGrid = field(default_factory=KernelGrid)
    signals: tuple[float, ...] = (2.0, 1.0, 4.0, 8.0)

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Mean and variance, or probabilities, of every query after all of the context."""
        queries = numeric(self.card, context.schema, queries)
        if context.schema.task == "classification":
            x, y = classification(self.card, context)
            return Prediction(probabilities=class_probabilities(x, y, queries, *self._classes(context)))
        x, y = regression(self.card, context)
        mean, variance = queries.new_empty(queries.shape[:2]), queries.new_empty(queries.shape[:2])
        for block in blocks(x.shape[0], len(self.grid) * x.shape[1] * (x.shape[1] + queries.shape[1])):
            mean[block], variance[block] = self._regress(x[block], y[block], queries[block])
        return Prediction(mean=mean, variance=variance)

    def prequential(self, episodes: Pairs) -> Prediction:
        """The same at every t from the examples before it, hyper-parameters chosen from these too."""
        if episodes.schema.task == "classification":
            x, y = classification(self.card, episodes)
            return Prediction(probabilities=prefix_class_probabilities(x, y, *self._classes(episodes)))
        x, y = regression(self.card, episodes)
        mean, variance = torch.empty_like(y), torch.empty_like(y)
        for block in blocks(x.shape[0], len(self.grid) * x.shape[1] ** 2):
            gaussian = self._gaussian(x[block], y[block])
            index = first_best(gaussian.log_evidence[..., :-1])
            mean[block] = chosen(gaussian.mean, index)
            variance[block] = chosen(prefix_scale(gaussian.innovations)[..., :-1] * gaussian.spread, index)
        return Prediction(mean=mean, variance=variance)

    def _regress(self, x: Tensor, y: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        gaussian = self._gaussian(x, y)
        index = first_best(gaussian.log_evidence[..., -1])[:, None].expand(queries.shape[:2])
        shared = torch.linalg.solve_triangular(gaussian.factor, self.grid.kernel(x, queries), upper=False)
        means = torch.einsum("gbt,gbtq->gbq", gaussian.innovations, shared)
        spreads = 1 + self.grid.noise(x) - shared.square().sum(-2)
        scale = prefix_scale(gaussian.innovations)[..., -1:]
        return chosen(means, index), chosen(scale * spreads, index)

    def _gaussian(self, x: Tensor, y: Tensor) -> PrefixGaussian:
        return PrefixGaussian.of(plus_diagonal(self.grid.kernel(x, x), self.grid.noise(x)), y)

    def _classes(self, pairs: Pairs) -> tuple[KernelGrid, int]:
        """The grid of a classification, in which a signal's variance stands where a regression has its noise."""
        variances = tuple(signal**2 for signal in self.signals)
        return KernelGrid(self.grid.lengths, variances), pairs.schema.num_classes
