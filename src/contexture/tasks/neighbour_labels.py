"""Labels that only their neighbours tell, learnt in context.

    y_t fair coin flips for t < num_seeds;  y_t = y_s with s < t the nearest to x_t afterwards;  x_t ~ N(0, I_d)

Bhattamishra, Patel, Blunsom, Kanade 2024, "Understanding in-context learning in transformers and LLMs by learning to
learn discrete functions" (nearest-neighbour task): 20 examples with random labels, then their neighbours. Inputs here
are Gaussian, so that no two are equally near.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.classical.neighbours import distances
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import labelled
from contexture.tasks.draws import at_least, integers, normal
from contexture.tasks.references import class_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class NeighbourLabels:
    """Random labels at first, and that of the nearest earlier example afterwards.

    The nearest neighbour is the oracle: nobody can do better than chance on the coins.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="neighbour-labels",
        summary="Examples with random labels, then examples with the label of the nearest before them.",
        paper="Bhattamishra et al.: Understanding in-context learning by learning to learn discrete functions",
        year=2024,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 8
    num_points: int = 40
    num_seeds: int = 20

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, num_seeds=self.num_seeds)
        if self.num_seeds > self.num_points:
            raise InputError(f"{self.num_seeds} random labels do not fit into {self.num_points} examples")

    @property
    def chance(self) -> float:
        """One half: every label is that of a coin."""
        return 0.5

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: seeds [batch, num_seeds], the random labels."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        seeds = integers(batch, self.num_seeds, below=2, generator=generator)
        y, away = seeds, distances(x, x)
        for t in range(self.num_seeds, self.num_points):
            nearest = away[:, t, :t].argmin(-1, keepdim=True)
            y = torch.cat((y, y.gather(1, nearest)), 1)
        return labelled(x, y == 1, {"seeds": seeds})

    def oracle(self) -> Learner:
        """The label of the nearest example."""
        return NearestNeighbour()

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
