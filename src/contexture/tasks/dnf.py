"""Formulas in disjunctive normal form, learnt in context.

    y = OR of three terms, each the AND of its literals;  a variable is positive, negated, absent in a term with
    probability .1, .1, .8;  x uniform over {-1, 1}^d, with 35 % of the examples rewritten to satisfy a random term

Bhattamishra, Patel, Blunsom, Kanade 2024, "Understanding in-context learning in transformers and LLMs by learning to
learn discrete functions" (3-term DNF): d = 28.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import constant_error, labelled, signs
from contexture.tasks.draws import at_least
from contexture.tasks.normal_form import draw_terms, rewritten, satisfied, share_of_satisfied
from contexture.tasks.references import class_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class DNF:
    """True where any term holds; triples of terms are too many to enumerate, so no oracle is known."""

    card: ClassVar[TaskCard] = TaskCard(
        name="dnf",
        summary="A disjunction of three conjunctions of a few literals over signs.",
        paper="Bhattamishra et al.: Understanding in-context learning by learning to learn discrete functions",
        year=2024,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 28
    num_points: int = 70
    num_terms: int = 3

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, num_terms=self.num_terms)

    @property
    def chance(self) -> float:
        """P(true) = .35 + .65 (1 - (1 - .9^d)^terms), or the rest."""
        return constant_error(share_of_satisfied(self.num_features, self.num_terms))

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: terms [batch, terms, features]."""
        terms = draw_terms(batch, self.num_terms, self.num_features, generator=generator)
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        x = rewritten(x, terms, generator=generator)
        return labelled(x, satisfied(x, terms), {"terms": terms})

    def oracle(self) -> None:
        """None."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
