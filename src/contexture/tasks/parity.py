"""Parities of a hidden subset of variables, learnt in context.

    y = 1 where an odd number of the x_i with i in S is -1;  S uniform over the non-empty subsets;
    x uniform over {-1, 1}^d

Bhattamishra, Patel, Blunsom, Kanade 2024, "Understanding in-context learning in transformers and LLMs by learning to
learn discrete functions": d = 10, where transformers stay at chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.oracles.version_space import Parities, VersionSpace
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import labelled, signs
from contexture.tasks.draws import at_least, integers
from contexture.tasks.references import class_baselines

MOST_FEATURES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """True where the parity of the hidden variables is odd; the oracle lets all consistent parities vote."""

    card: ClassVar[TaskCard] = TaskCard(
        name="parity",
        summary="The parity of a hidden subset of signs.",
        paper="Bhattamishra et al.: Understanding in-context learning by learning to learn discrete functions",
        year=2024,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 10
    num_points: int = 40

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        if self.num_features > MOST_FEATURES:
            raise InputError(f"parities are enumerated for at most {MOST_FEATURES} features, not {self.num_features}")

    @property
    def chance(self) -> float:
        """One half: every non-empty parity is balanced."""
        return 0.5

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: subset [batch, features]."""
        code = 1 + integers(batch, below=2**self.num_features - 1, generator=generator)
        subset = code.unsqueeze(1) >> torch.arange(self.num_features, device=code.device) & 1
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        odd = ((x < 0) & (subset == 1).unsqueeze(1)).sum(-1) % 2 == 1
        return labelled(x, odd, {"subset": subset})

    def oracle(self) -> Learner:
        """The vote of all parities that agree with every example."""
        return VersionSpace(concepts=Parities())

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
