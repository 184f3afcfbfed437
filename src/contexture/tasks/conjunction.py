"""Conjunctions of literals, learnt in context.

    y = AND of the present literals;  each variable is positive, negated, absent with probability .15, .15, .7;
    x uniform over {-1, 1}^d, with 30 % of the examples rewritten to satisfy the conjunction

Bhattamishra, Patel, Blunsom, Kanade 2024, "Understanding in-context learning in transformers and LLMs by learning to
learn discrete functions": d = 28.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.oracles.concept_posterior import ConceptPosterior, Conjunctions
from contexture.learners.oracles.version_space import MOST_CONCEPTS
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import constant_error, forced, labelled, literals, share_of_forced_label, signs
from contexture.tasks.draws import at_least
from contexture.tasks.references import class_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class Conjunction:
    """True where all present literals hold; the inputs themselves hint at the literals.

    Up to eight variables an oracle weighs both.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="conjunction",
        summary="A conjunction of a few literals over signs.",
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
        """Always answering false: P(true) = .3 + .7 * .85^d."""
        return constant_error(share_of_forced_label(self.num_features))

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: literals [batch, features]."""
        concept = literals(batch, self.num_features, generator=generator)
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        x = forced(x, concept, generator=generator)
        return labelled(x, (x * concept.unsqueeze(1) >= 0).all(-1), {"literals": concept})

    def oracle(self) -> Learner | None:
        """The posterior over all conjunctions and what the inputs say of them, or None where they are too many."""
        concepts = Conjunctions()
        return ConceptPosterior(concepts=concepts) if concepts.count(self.num_features) <= MOST_CONCEPTS else None

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
