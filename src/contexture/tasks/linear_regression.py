"""Noisy linear regression in context, the standard family.

    w ~ N(0, I_d),  x_t ~ N(0, I_d),  y_t = w.x_t + noise * N(0, 1)

Garg, Tsipras, Liang, Valiant 2022, "What can transformers learn in-context? A case study of simple function classes";
d = 8 and noise 0.5 as in Raventós, Paul, Chen, Ganguli 2023.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, linear, normal
from contexture.tasks.inputs import StandardNormal
from contexture.tasks.references import linear_baselines, linear_oracle


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearRegression:
    """A linear function of standard normal inputs; `noise` is the standard deviation of the target's noise.

    The oracle is the posterior mean under w ~ N(0, I), ridge regression with penalty noise^2.

    >>> task = LinearRegression(num_features=3, num_points=5)
    >>> episodes = task.sample(2, generator=torch.Generator().manual_seed(0))
    >>> tuple(episodes.x.shape), tuple(episodes.y.shape), task.chance
    ((2, 5, 3), (2, 5), 3.25)
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="linear-regression",
        summary="A linear function with standard normal weights and inputs, and Gaussian noise.",
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
        return linear(x, weights, noise=self.noise, generator=generator)

    def oracle(self) -> Learner:
        """Bayesian ridge regression with the true prior and noise (least squares without noise)."""
        return linear_oracle(self.noise)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, averaging, least squares, ridge tuned by evidence, nearest neighbours."""
        return linear_baselines()
