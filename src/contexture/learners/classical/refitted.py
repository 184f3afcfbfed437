"""Learners that scikit-learn fits, anew for every episode and context size: what they share.

Shapes: x [batch, time, features]; y [batch, time]. One thread each, so that many can run side by side.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import classes, targets
from contexture.protocols import LearnerCard, Pairs, Prediction, Schema


class RefittedLearner(ABC):
    """A learner whose model is fitted anew for every context; columns may be categorical and cells missing."""

    __slots__ = ()
    card: ClassVar[LearnerCard]

    @abstractmethod
    def model(self, schema: Schema) -> Any:
        """An unfitted scikit-learn regressor or classifier for such a table."""

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Fit one model per episode; without examples the mean is 0 and all classes are equal.

        A column without any known cell in the context is left out of account.
        """
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        task = context.schema.task
        y = (classes if task == "classification" else targets)(self.card, context)
        x = context.x.to(torch.float64)
        if bool(x.isinf().any() | queries.isinf().any()):
            raise InputError(f"{self.card.name} takes finite numbers, but x holds an infinite one")
        answer = self._chances if task == "classification" else self._values
        empty = x.isnan().all(dim=1, keepdim=True)
        x, queries = x.masked_fill(empty, 0), queries.to(torch.float64).masked_fill(empty, 0)
        with threadpool_limits(limits=1):
            said = [answer(context.schema, x[b].numpy(), y[b].numpy(), queries[b].numpy()) for b in range(len(x))]
        values = torch.from_numpy(np.stack(said))
        return Prediction(probabilities=values) if task == "classification" else Prediction(mean=values)

    def prequential(self, episodes: Pairs) -> Prediction:
        """A fit for every prefix: slow, and the same as `predict` on each."""
        said = [self.predict(episodes.prefix(t), episodes.x[:, t : t + 1]).value for t in range(episodes.time)]
        values = torch.cat(said, dim=1)
        return Prediction(probabilities=values) if episodes.schema.num_classes else Prediction(mean=values)

    def _values(self, schema: Schema, x: Any, y: Any, queries: Any) -> Any:
        if len(y) == 0:
            return np.zeros(len(queries))
        return self.model(schema).fit(x, y).predict(queries)

    def _chances(self, schema: Schema, x: Any, y: Any, queries: Any) -> Any:
        """Probabilities of all the schema's classes: those that the context lacks get zero."""
        seen = np.unique(y)
        if len(seen) == 0:
            return np.full((len(queries), schema.num_classes), 1 / schema.num_classes)
        chances = np.zeros((len(queries), schema.num_classes))
        chances[:, seen] = 1.0 if len(seen) == 1 else self.model(schema).fit(x, y).predict_proba(queries)
        return chances
