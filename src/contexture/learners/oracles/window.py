"""A learner on sliding windows of inputs: exact where the target is a function of the last few of them.

    window_t = (x_t, x_{t-1}, .., x_{t-length+1}),  zeros before the first example

Legend: batch = episodes, rows = examples or queries, features = columns of x.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.inputs import numeric, regression
from contexture.protocols import Learner, LearnerCard, Pairs, Prediction, Schema


def windows(x: Float[Tensor, "batch rows features"], length: int) -> Float[Tensor, "batch rows out"]:
    """Each row beside the `length` - 1 rows before it, the latest first.

    >>> windows(torch.tensor([[[1.0], [2.0], [3.0]]]), 2).tolist()
    [[[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]]
    """
    time = x.shape[1]
    return torch.cat([torch.nn.functional.pad(x, (0, 0, lag, 0))[:, :time] for lag in range(length)], -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnWindow:
    """Another learner, shown windows of x in place of x; examples are taken in the order in which they come."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="on-window",
        summary="A learner shown the last few inputs in place of the last one.",
        kind="classical",
        targets=frozenset({"regression"}),
    )

    length: int = 2
    learner: Learner = field(default_factory=BayesRidge)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InputError(f"a window holds at least one input, not {self.length}")

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The inner learner's prediction at each query, as if it came right after the context."""
        queries = numeric(self.card, context.schema, queries)
        mapped = self._mapped(context)
        last = torch.nn.functional.pad(context.x.to(queries.dtype), (0, 0, self.length - 1, 0))
        last = last[:, last.shape[1] - self.length + 1 :].flip(1).flatten(1).unsqueeze(1)
        return self.learner.predict(mapped, torch.cat((queries, last.expand(-1, queries.shape[1], -1)), -1))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The inner learner's prediction at every t."""
        return self.learner.prequential(self._mapped(episodes))

    def _mapped(self, episodes: Pairs) -> Pairs:
        x, y = regression(self.card, episodes)
        x = windows(x, self.length)
        return Pairs(x=x, y=y, schema=Schema.numeric(x.shape[-1]))
