"""Learners whose prediction is x . w: what they share is turning weights into predictions.

    prediction at t = x_t . w(x_1, y_1, .., x_{t-1}, y_{t-1})

Shapes: weights [batch, features]; prefix weights [batch, time + 1, features], entry n after the first n examples.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.inputs import numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction


class LinearLearner(ABC):
    """A learner with weights after every prefix; it has no intercept (`Standardized` centres tables)."""

    __slots__ = ()
    card: ClassVar[LearnerCard]

    @abstractmethod
    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The weights after all of the examples."""
        return self.prefix_weights(x, y)[:, -1]

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The mean of every query after all of the context."""
        queries = numeric(self.card, context.schema, queries)
        return Prediction(mean=torch.einsum("bqd,bd->bq", queries, self.weights(*regression(self.card, context))))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The mean at every t from the examples before it."""
        x, y = regression(self.card, episodes)
        weights = self.prefix_weights(x[:, :-1], y[:, :-1])[:, : episodes.time]
        return Prediction(mean=torch.einsum("btd,btd->bt", x, weights))
