"""Linear regression whose inputs are scaled.

    x_t ~ N(0, scale^2 I_d),  w ~ N(0, I_d),  y_t = w.x_t + noise * N(0, 1)

Garg et al. 2022 (a shift of the inputs at evaluation, scales 1/3 to 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least, linear, normal
from contexture.tasks.references import linear_baselines, linear_oracle


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledLinearRegression:
    """A linear function of inputs that are `scale` times as large as in the standard family."""

    card: ClassVar[TaskCard] = TaskCard(
        name="scaled-linear-regression",
        summary="Linear regression whose inputs are scaled by a constant.",
        paper="Garg et al.: What can transformers learn in-context?",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 8
    num_points: int = 25
    noise: float = 0.5
    scale: float = 3.0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        at_least(0, noise=self.noise)
        above_zero(scale=self.scale)

    @property
    def chance(self) -> float:
        """E[y^2] = scale^2 d + noise^2."""
        return self.scale**2 * self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        x = self.scale * normal(batch, self.num_points, self.num_features, generator=generator)
        weights = normal(batch, self.num_features, generator=generator)
        return linear(x, weights, noise=self.noise, generator=generator)

    def oracle(self) -> Learner:
        """Bayesian ridge regression with the true prior and noise."""
        return linear_oracle(self.noise)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, averaging, least squares, ridge tuned by evidence, nearest neighbours."""
        return linear_baselines()
