r"""Ridge regression whose penalty has the highest evidence (type-II maximum likelihood) among a grid:

    w ~ N(0, scale/penalty I),  y_t = x_t . w + N(0, scale):   y ~ N(0, scale (X X' / penalty + I))

The scale is integrated out, so that only the penalty is chosen, anew for every prefix.
MacKay (1992), Bayesian interpolation. Shapes: x [batch, time, features]; y [batch, time]; scores
[penalties, batch, prefixes].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.penalties import PENALTIES, checked, shrunken_weights
from contexture.learners.classical.prefix_gaussian import (
    PrefixGaussian,
    chosen,
    first_best,
    log_evidence,
    prefix_scale,
    scale,
)
from contexture.learners.inputs import blocks, numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, slots=True)
class EvidenceRidge:
    """Ridge regression with the penalty, of a grid, that makes the context most likely; mean and variance.

    Expects targets of roughly unit scale. Ties go to the earlier penalty (the larger, as the grid comes).
    InputError unless the penalties are positive.

    >>> from contexture.protocols import Schema
    >>> x = torch.arange(1.0, 7.0)[None, :, None]
    >>> context = Pairs(x=x, y=0.5 * x[..., 0], schema=Schema.numeric(1))
    >>> round(EvidenceRidge((100.0, 0.01)).predict(context, x[:, :1]).mean.item(), 3)
    0.5
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="ridge",
        summary="Ridge regression with the penalty of highest evidence.",
        paper="MacKay, Bayesian interpolation",
        year=1992,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        checked(self.card, self.penalties)

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Mean and variance of every query after all of the context."""
        queries = numeric(self.card, context.schema, queries)
        x, y = regression(self.card, context)
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        along = torch.einsum("btr,bt->br", left, y)
        grid = x.new_tensor(self.penalties)[:, None, None]
        learned = values.square() / (values.square() + grid)
        squares = (y.square().sum(-1) - (along.square() * learned).sum(-1)).clamp_min(0)
        stretch = (values.square() / grid).log1p().sum(-1)
        index = first_best(log_evidence(squares, stretch, context.time))
        penalty, noise = grid[:, 0, 0][index], scale(chosen(squares, index), context.time)
        weights = shrunken_weights(along, values, right, penalty)
        share = values.square() / (values.square() + penalty[:, None])
        known = torch.einsum("bqd,brd->bqr", queries, right).square() @ share[..., None]
        unknown = (queries.square().sum(-1) - known[..., 0]) / penalty[:, None]
        mean = torch.einsum("bqd,bd->bq", queries, weights)
        return Prediction(mean=mean, variance=noise[:, None] * (1 + unknown.clamp_min(0)))

    def prequential(self, episodes: Pairs) -> Prediction:
        """Mean and variance at every t from the examples before it, the penalty chosen from these too."""
        x, y = regression(self.card, episodes)
        mean, variance = torch.empty_like(y), torch.empty_like(y)
        for block in blocks(x.shape[0], len(self.penalties) * x.shape[1] ** 2):
            grid = x.new_tensor(self.penalties)[:, None, None, None]
            products = x[block] @ x[block].mT / grid
            gaussian = PrefixGaussian.of(products + torch.eye(x.shape[1]).to(x), y[block])
            index = first_best(gaussian.log_evidence[..., :-1])
            mean[block] = chosen(gaussian.mean, index)
            noise = prefix_scale(gaussian.innovations)[..., :-1]
            variance[block] = chosen(noise * gaussian.spread, index)
        return Prediction(mean=mean, variance=variance)
