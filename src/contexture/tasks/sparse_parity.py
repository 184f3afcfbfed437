"""Parities of a hidden pair (or few) of variables, learnt in context.

    y = 1 where an odd number of the x_i with i in S is -1;  |S| = num_relevant, S uniform;  x uniform over {-1, 1}^d

Bhattamishra, Patel, Blunsom, Kanade 2024 (d = 20, 2 relevant); Park et al. 2024, "Can Mamba learn how to learn?"
(d = 10, 2 relevant, 140 points), where attention stays at chance and state-space models do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.oracles.version_space import Parities, VersionSpace
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import labelled, signs
from contexture.tasks.draws import at_least, subsets
from contexture.tasks.references import class_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseParity:
    """True where the parity of the few hidden variables is odd; the oracle lets all consistent parities vote."""

    card: ClassVar[TaskCard] = TaskCard(
        name="sparse-parity",
        summary="The parity of two hidden variables among many signs.",
        paper="Bhattamishra et al.: Understanding in-context learning by learning to learn discrete functions",
        year=2024,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 20
    num_points: int = 70
    num_relevant: int = 2

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, num_relevant=self.num_relevant)
        if self.num_relevant > self.num_features:
            raise InputError(f"{self.num_relevant} relevant variables do not fit into {self.num_features}")

    @property
    def chance(self) -> float:
        """One half: every such parity is balanced."""
        return 0.5

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: relevant [batch, num_relevant]."""
        relevant = subsets(batch, self.num_features, self.num_relevant, generator=generator)
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        seen = x.gather(2, relevant.unsqueeze(1).expand(-1, self.num_points, -1))
        return labelled(x, (seen < 0).sum(-1) % 2 == 1, {"relevant": relevant})

    def oracle(self) -> Learner:
        """The vote of all parities of that many variables that agree with every example."""
        return VersionSpace(concepts=Parities(num_relevant=self.num_relevant))

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
