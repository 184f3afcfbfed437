"""The mean of the targets seen so far, whatever x is: the regression that every other must beat.

    mean_n = (1/n) sum_{t<=n} y_t,  0 before any example

Shapes: y [batch, time].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.inputs import targets
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, slots=True)
class Mean:
    """Predicts the mean of the targets and ignores x.

    >>> from contexture.protocols import Schema
    >>> episode = Pairs(x=torch.zeros(1, 3, 1), y=torch.tensor([[1.0, 4.0, 7.0]]), schema=Schema.numeric(1))
    >>> Mean().prequential(episode).mean
    tensor([[0.0000, 1.0000, 2.5000]], dtype=torch.float64)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="mean",
        summary="The mean of the targets seen so far.",
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
        tables=True,
    )

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The mean of the context's targets, for every query."""
        total = targets(self.card, context).sum(dim=1, keepdim=True)
        return Prediction(mean=(total / max(1, context.time)).expand(-1, queries.shape[1]).contiguous())

    def prequential(self, episodes: Pairs) -> Prediction:
        """The mean of the targets before each t."""
        y = targets(self.card, episodes)
        counts = torch.arange(episodes.time, dtype=y.dtype, device=y.device).clamp_min(1)
        before = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1].cumsum(dim=1)], dim=1)[:, : episodes.time]
        return Prediction(mean=before / counts)
