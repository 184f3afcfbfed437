"""Logistic regression in context: two classes whose log odds are linear in x.

    P(y_t = 1 | x_t) = 1 / (1 + exp(-w.x_t)),  w ~ N(0, I_d),  x_t ~ N(0, I_d)

The classification counterpart of linear regression; McCullagh and Nelder 1989, "Generalized linear models".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, class_schema, normal, uniform
from contexture.tasks.references import class_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class LogisticRegression:
    """Two equally likely classes, drawn with log odds w.x; the posterior mean has no closed form."""

    card: ClassVar[TaskCard] = TaskCard(
        name="logistic-regression",
        summary="Two classes whose log odds are linear in the inputs.",
        paper="McCullagh, Nelder: Generalized linear models",
        year=1989,
        episodes="pairs",
        metric="log-loss",
    )

    num_features: int = 8
    num_points: int = 41

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)

    @property
    def chance(self) -> float:
        """log 2: both classes are equally likely."""
        return math.log(2)

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], probability [batch, time] of class 1."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        weights = normal(batch, self.num_features, generator=generator)
        probability = (x @ weights.unsqueeze(-1)).squeeze(-1).sigmoid()
        y = (uniform(*probability.shape, generator=generator) < probability).long()
        latents = {"weights": weights, "probability": probability}
        return Pairs(x=x, y=y, schema=class_schema(self.num_features, 2), latents=latents)

    def oracle(self) -> None:
        """None: the posterior under a Gaussian prior has no closed form."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
