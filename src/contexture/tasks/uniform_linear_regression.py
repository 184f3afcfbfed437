"""Linear regression with uniform inputs, as where gradient descent in the forward pass was first shown.

    x_t ~ U(-reach, reach)^d,  w ~ N(0, I_d),  y_t = w.x_t + noise * N(0, 1)

von Oswald et al. 2022, arXiv:2212.07677 (d = 10, ten examples and a query, no noise).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least, linear, normal, uniform
from contexture.tasks.inputs import Uniform
from contexture.tasks.references import linear_baselines, linear_oracle


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformLinearRegression:
    """A linear function of inputs that are uniform in a cube; `noise` is the standard deviation of the noise."""

    card: ClassVar[TaskCard] = TaskCard(
        name="uniform-linear-regression",
        summary="A linear function with standard normal weights of inputs that are uniform in a cube.",
        paper="von Oswald et al.: Transformers learn in-context by gradient descent",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 10
    num_points: int = 11
    noise: float = 0.0
    reach: float = 1.0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        at_least(0, noise=self.noise)
        above_zero(reach=self.reach)

    @property
    def inputs(self) -> Uniform:
        """Every coordinate of x ~ U(-reach, reach)."""
        return Uniform(num_features=self.num_features, reach=self.reach)

    @property
    def chance(self) -> float:
        """E[y^2] = d reach^2 / 3 + noise^2."""
        return self.num_features * self.reach**2 / 3 + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        x = uniform(batch, self.num_points, self.num_features, low=-self.reach, high=self.reach, generator=generator)
        weights = normal(batch, self.num_features, generator=generator)
        return linear(x, weights, noise=self.noise, generator=generator)

    def oracle(self) -> Learner:
        """Bayesian ridge regression with the true prior and noise (least squares without noise)."""
        return linear_oracle(self.noise)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, averaging, least squares, ridge tuned by evidence, nearest neighbours."""
        return linear_baselines()
