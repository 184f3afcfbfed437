"""Functions that are linear in the squares of the inputs.

    y_t = sum_i w_i x_ti^2 / sqrt(3) + noise * N(0, 1),  w ~ N(0, I_d),  x_t ~ N(0, I_d)

Garg et al. 2022 (the code beside the paper); the divisor makes E[y^2] = d, as E[x^4] = 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.oracles.features import OnFeatures, Squares
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, noisy, normal
from contexture.tasks.inputs import StandardNormal
from contexture.tasks.references import linear_oracle, nonlinear_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class QuadraticRegression:
    """A linear function of squared inputs; the oracle is Bayesian ridge regression on them."""

    card: ClassVar[TaskCard] = TaskCard(
        name="quadratic-regression",
        summary="A linear function of the squares of the inputs.",
        paper="Garg et al.: What can transformers learn in-context?",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 8
    num_points: int = 25
    noise: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        at_least(0, noise=self.noise)

    @property
    def inputs(self) -> StandardNormal:
        """x ~ N(0, I)."""
        return StandardNormal(num_features=self.num_features)

    @property
    def chance(self) -> float:
        """E[y^2] = d + noise^2."""
        return self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        weights = normal(batch, self.num_features, generator=generator)
        clean = (Squares()(x) @ weights.unsqueeze(-1)).squeeze(-1)
        return noisy(x, clean, noise=self.noise, generator=generator, latents={"weights": weights})

    def oracle(self) -> Learner:
        """Bayesian ridge regression on the squares, with the true prior and noise."""
        return OnFeatures(features=Squares(), learner=linear_oracle(self.noise))

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, least squares, ridge tuned by evidence, nearest neighbours, a Gaussian process."""
        return nonlinear_baselines()
