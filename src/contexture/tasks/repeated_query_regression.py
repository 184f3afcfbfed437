"""Linear regression whose last point repeats an earlier one, with fresh noise.

    x_last = x_j,  j uniform over the earlier points

Garg et al. 2022: copying y_j is right without noise; with noise the other points help.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, integers, linear, normal
from contexture.tasks.references import linear_baselines, linear_oracle


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedQueryRegression:
    """A linear function asked, last, at a point that was shown before."""

    card: ClassVar[TaskCard] = TaskCard(
        name="repeated-query-regression",
        summary="Linear regression whose last point repeats an earlier one.",
        paper="Garg et al.: What can transformers learn in-context?",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 8
    num_points: int = 25
    noise: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features)
        at_least(2, num_points=self.num_points)
        at_least(0, noise=self.noise)

    @property
    def chance(self) -> float:
        """E[y^2] = d + noise^2."""
        return self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], repeated [batch], the index of the repeated point."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        repeated = integers(batch, below=self.num_points - 1, generator=generator)
        x[:, -1] = x[torch.arange(batch, device=x.device), repeated]
        weights = normal(batch, self.num_features, generator=generator)
        return linear(x, weights, noise=self.noise, generator=generator, latents={"repeated": repeated})

    def oracle(self) -> Learner:
        """Bayesian ridge regression with the true prior and noise."""
        return linear_oracle(self.noise)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, averaging, least squares, ridge tuned by evidence, nearest neighbours."""
        return linear_baselines()
