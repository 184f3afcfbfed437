"""Majorities of a hidden subset of variables, learnt in context.

    y = 1 where sum_{i in S} x_i > 0;  each variable is in S with probability .3;  x uniform over {-1, 1}^d

Bhattamishra, Patel, Blunsom, Kanade 2024, "Understanding in-context learning in transformers and LLMs by learning to
learn discrete functions" (sparse majority): d = 28. A tie counts as no majority.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import constant_error, labelled, share_of_majorities, signs
from contexture.tasks.draws import at_least, uniform
from contexture.tasks.references import class_baselines

SUBSET_SHARE = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class MajorityOfSubset:
    """True where more of the hidden variables are +1 than -1."""

    card: ClassVar[TaskCard] = TaskCard(
        name="majority-of-subset",
        summary="The majority among a hidden subset of signs.",
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
        """Always answering false: P(true) is half of what is no tie."""
        return constant_error(share_of_majorities(self.num_features, SUBSET_SHARE))

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: subset [batch, features]."""
        subset = (uniform(batch, self.num_features, generator=generator) < SUBSET_SHARE).double()
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        return labelled(x, (x @ subset.unsqueeze(-1)).squeeze(-1) > 0, {"subset": subset})

    def oracle(self) -> None:
        """None."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
