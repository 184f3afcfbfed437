r"""Ridge regression whose penalty has the smallest leave-one-out error among a grid:

    sum_i ((y_i - x_i . w) / (1 - h_ii))^2,   H = X (X'X + penalty I)^-1 X'

chosen anew for every prefix. Allen (1974), The relationship between variable selection and data augmentation (PRESS).
Shapes: x [batch, time, features]; y [batch, time]; scores [penalties, batch, prefixes].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.penalties import PENALTIES, checked, shrunken_weights
from contexture.learners.classical.prefix_gaussian import PrefixGaussian, chosen, first_best
from contexture.learners.inputs import blocks, numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, slots=True)
class LeaveOneOutRidge:
    """Ridge regression with the penalty, of a grid, that predicts each example of the context best from the others.

    Ties go to the earlier penalty (the larger, as the grid comes). InputError unless the penalties are positive.

    >>> from contexture.protocols import Schema
    >>> x = torch.arange(1.0, 7.0)[None, :, None]
    >>> context = Pairs(x=x, y=0.5 * x[..., 0], schema=Schema.numeric(1))
    >>> round(LeaveOneOutRidge((100.0, 0.01)).predict(context, x[:, :1]).mean.item(), 3)
    0.5
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="leave-one-out-ridge",
        summary="Ridge regression with the penalty of smallest leave-one-out error.",
        paper="Allen, The relationship between variable selection and data augmentation and a method for prediction",
        year=1974,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        checked(self.card, self.penalties)

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The mean of every query after all of the context."""
        queries = numeric(self.card, context.schema, queries)
        x, y = regression(self.card, context)
        left, values, right = torch.linalg.svd(x, full_matrices=False)
        along = torch.einsum("btr,bt->br", left, y)
        grid = x.new_tensor(self.penalties)[:, None, None]
        learned = values.square() / (values.square() + grid)
        fitted = torch.einsum("btr,gbr->gbt", left, learned * along)
        leverage = torch.einsum("btr,gbr->gbt", left.square(), learned)
        index = first_best(-((y - fitted) / (1 - leverage)).square().sum(-1))
        weights = shrunken_weights(along, values, right, grid[:, 0, 0][index])
        return Prediction(mean=torch.einsum("bqd,bd->bq", queries, weights))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The mean at every t from the examples before it, the penalty chosen from these too."""
        x, y = regression(self.card, episodes)
        mean = torch.empty_like(y)
        for block in blocks(x.shape[0], len(self.penalties) * x.shape[1] ** 2):
            grid = x.new_tensor(self.penalties)[:, None, None, None]
            products = x[block] @ x[block].mT / grid
            gaussian = PrefixGaussian.of(products + torch.eye(x.shape[1]).to(x), y[block])
            index = first_best(-gaussian.left_out_error[..., :-1])
            mean[block] = chosen(gaussian.mean, index)
        return Prediction(mean=mean)
