"""Thresholds of a few signed variables, learnt in context.

    y = 1 where w.x + b > 0;  w_i = -1, 0, 1 with probability .15, .7, .15;  b uniform over -2.5, -1.5, .., 2.5;
    x uniform over {-1, 1}^d

Bhattamishra, Patel, Blunsom, Kanade 2024, "Understanding in-context learning in transformers and LLMs by learning to
learn discrete functions" (0-1 threshold functions): d = 28.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.oracles.concept_posterior import ConceptPosterior, Thresholds
from contexture.learners.oracles.version_space import MOST_CONCEPTS
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import labelled, literals, signs
from contexture.tasks.draws import at_least, integers
from contexture.tasks.references import class_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroOneThreshold:
    """True where the present variables, some of them negated, sum to more than a threshold."""

    card: ClassVar[TaskCard] = TaskCard(
        name="zero-one-threshold",
        summary="A threshold on the sum of a few signed variables.",
        paper="Bhattamishra et al.: Understanding in-context learning by learning to learn discrete functions",
        year=2024,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 28
    num_points: int = 70

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)

    @property
    def chance(self) -> float:
        """One half: negating w and b negates the class, and is as likely."""
        return 0.5

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], offset [batch]."""
        weights = literals(batch, self.num_features, generator=generator)
        offset = integers(batch, below=6, generator=generator) - 2.5
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        sums = (x @ weights.unsqueeze(-1)).squeeze(-1) + offset.unsqueeze(1)
        return labelled(x, sums > 0, {"weights": weights, "offset": offset})

    def oracle(self) -> Learner | None:
        """The posterior over all such thresholds, or None where they are too many to enumerate."""
        few = Thresholds().count(self.num_features) <= MOST_CONCEPTS
        return ConceptPosterior(concepts=Thresholds()) if few else None

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
