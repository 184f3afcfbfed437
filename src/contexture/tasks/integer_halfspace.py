"""Halfspaces with small integer weights, learnt in context.

    y = 1 where w.x > 1/2;  w_i uniform over -3, .., 3;  x uniform over {-1, 1}^d

Bhattamishra, Patel, Blunsom, Kanade 2024, "Understanding in-context learning in transformers and LLMs by learning to
learn discrete functions": d = 20. The half keeps sums, which are integers, off the boundary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import constant_error, labelled, signs
from contexture.tasks.draws import at_least, integers
from contexture.tasks.references import class_baselines

LARGEST = 3


def share_of_positive_sums(num_features: int) -> float:
    """P(w.x >= 1): half of what is not zero, by the distribution of a sum of integers uniform over -3, .., 3.

    >>> round(share_of_positive_sums(1), 4)
    0.4286
    """
    counts = [1]
    for _ in range(num_features):
        padded = [0] * (2 * LARGEST) + counts + [0] * (2 * LARGEST)
        counts = [sum(padded[i : i + 2 * LARGEST + 1]) for i in range(len(counts) + 2 * LARGEST)]
    ties: float = counts[len(counts) // 2] / (2 * LARGEST + 1) ** num_features
    return (1 - ties) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class IntegerHalfspace:
    """True on one side of a hyperplane with integer weights; there are too many to enumerate, so no oracle is known."""

    card: ClassVar[TaskCard] = TaskCard(
        name="integer-halfspace",
        summary="A halfspace with integer weights from -3 to 3 over signs.",
        paper="Bhattamishra et al.: Understanding in-context learning by learning to learn discrete functions",
        year=2024,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 20
    num_points: int = 70

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)

    @property
    def chance(self) -> float:
        """Always answering false: a sum of zero counts as false."""
        return constant_error(share_of_positive_sums(self.num_features))

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        weights = integers(batch, self.num_features, below=2 * LARGEST + 1, generator=generator).double() - LARGEST
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        return labelled(x, (x @ weights.unsqueeze(-1)).squeeze(-1) > 0.5, {"weights": weights})

    def oracle(self) -> None:
        """None."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
