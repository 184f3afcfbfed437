r"""Online logistic regression: one gradient step on the log loss per example, in their order.

    W_t = W_{t-1} + rate x_t (e_{y_t} - softmax(x_t W_{t-1})),      x with a 1 appended

Shapes: x [batch, time, features]; y [batch, time]; W [batch, features + 1, classes].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import classification, numeric
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, slots=True)
class OnlineLogistic:
    """One gradient step per example; `rate` None takes one over the largest squared length of (x, 1) so far.

    InputError unless the rate is positive.

    >>> from contexture.protocols import Schema
    >>> episode = Pairs(x=torch.ones(1, 2, 1), y=torch.tensor([[0, 0]]), schema=Schema.classes(1, 2))
    >>> OnlineLogistic(rate=1.0).prequential(episode).probabilities[0].round(decimals=4)
    tensor([[0.5000, 0.5000],
            [0.8808, 0.1192]], dtype=torch.float64)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="online-logistic",
        summary="One gradient step on the log loss per example.",
        paper="Zinkevich, Online convex programming and generalized infinitesimal gradient ascent",
        year=2003,
        kind="online",
        targets=frozenset({"classification"}),
        invariances=frozenset({"column-order", "label-names"}),
    )

    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise InputError(f"online-logistic needs a positive rate, but it is {self.rate}")

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The probabilities of every query after all of the context."""
        queries = _with_one(numeric(self.card, context.schema, queries))
        *_, weights = self._weights(context)
        return Prediction(probabilities=(queries @ weights).softmax(-1))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The probabilities at every t from the examples before it."""
        x = _with_one(numeric(self.card, episodes.schema, episodes.x))
        chances = x.new_empty(episodes.batch, episodes.time, episodes.schema.num_classes)
        for t, weights in zip(range(episodes.time), self._weights(episodes), strict=False):
            chances[:, t] = (x[:, t, None] @ weights)[:, 0].softmax(-1)
        return Prediction(probabilities=chances)

    def _weights(self, pairs: Pairs) -> Iterator[Float[Tensor, "batch inputs classes"]]:
        """The weights after 0, 1, .., time examples."""
        x, y = classification(self.card, pairs)
        x = _with_one(x)
        targets = torch.nn.functional.one_hot(y, pairs.schema.num_classes).to(x)
        weights, longest = x.new_zeros(pairs.batch, x.shape[2], targets.shape[2]), x.new_zeros(pairs.batch)
        yield weights
        for t in range(pairs.time):
            longest = torch.maximum(longest, x[:, t].square().sum(-1))
            rate = 1 / longest if self.rate is None else torch.full_like(longest, self.rate)
            surprise = targets[:, t] - torch.einsum("bd,bdc->bc", x[:, t], weights).softmax(-1)
            weights = weights + rate[:, None, None] * x[:, t, :, None] * surprise[:, None]
            yield weights


def _with_one(x: Float[Tensor, "batch rows features"]) -> Float[Tensor, "batch rows inputs"]:
    return torch.nn.functional.pad(x, (0, 1), value=1.0)
