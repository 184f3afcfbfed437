"""The class shares seen so far, whatever x is: the classification that every other must beat.

    p_n(c) = (count_n(c) + pseudo_count) / (n + pseudo_count * classes)

pseudo_count 1 is Laplace's rule of succession, 1/2 is Jeffreys'.
Shapes: y [batch, time]; shares [batch, time, classes].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import classes
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, slots=True)
class Majority:
    """Predicts the smoothed class shares and ignores x; InputError unless the pseudo-count is positive.

    >>> from contexture.protocols import Schema
    >>> episode = Pairs(x=torch.zeros(1, 3, 1), y=torch.tensor([[1, 1, 0]]), schema=Schema.classes(1, 2))
    >>> Majority(pseudo_count=1.0).prequential(episode).probabilities[0]
    tensor([[0.5000, 0.5000],
            [0.3333, 0.6667],
            [0.2500, 0.7500]], dtype=torch.float64)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="majority",
        summary="The smoothed shares of the classes seen so far.",
        kind="classical",
        targets=frozenset({"classification"}),
        invariances=frozenset({"example-order", "column-order", "label-names"}),
        tables=True,
    )

    pseudo_count: float = 1.0

    def __post_init__(self) -> None:
        if not self.pseudo_count > 0:
            raise InputError(f"majority needs a positive pseudo-count, but it is {self.pseudo_count}")

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The shares of the context's classes, for every query."""
        shares = self._shares(self._one_hot(context).sum(dim=1, keepdim=True))
        return Prediction(probabilities=shares.expand(-1, queries.shape[1], -1).contiguous())

    def prequential(self, episodes: Pairs) -> Prediction:
        """The shares of the classes before each t."""
        seen = self._one_hot(episodes)
        return Prediction(probabilities=self._shares(seen.cumsum(dim=1) - seen))

    def _one_hot(self, pairs: Pairs) -> Float[Tensor, "batch time classes"]:
        codes = classes(self.card, pairs)
        return torch.nn.functional.one_hot(codes, pairs.schema.num_classes).to(torch.float64)

    def _shares(self, counts: Float[Tensor, "batch time classes"]) -> Float[Tensor, "batch time classes"]:
        smoothed = counts + self.pseudo_count
        return smoothed / smoothed.sum(-1, keepdim=True)
