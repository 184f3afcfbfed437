"""Linear regression whose inputs have a skewed covariance.

    x_t = U diag(s) z_t,  z_t ~ N(0, I_d),  s_i^2 = d i^-2 / sum_j j^-2,  U uniform over rotations, one per episode

Garg et al. 2022 (a shift of the inputs at evaluation); E[|x|^2] = d as in the standard family.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, linear, normal, orthogonal
from contexture.tasks.references import linear_baselines, linear_oracle


def skewed_eigenvalues(num_features: int) -> Float[Tensor, " features"]:
    """Proportional to 1/i^2, with sum `num_features`.

    >>> skewed_eigenvalues(2).tolist()
    [1.6, 0.4]
    """
    values = torch.arange(1, num_features + 1, dtype=torch.float64).pow(-2)
    return values * (num_features / values.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class SkewedLinearRegression:
    """A linear function of inputs whose covariance has eigenvalues proportional to 1/i^2, in a random basis."""

    card: ClassVar[TaskCard] = TaskCard(
        name="skewed-linear-regression",
        summary="Linear regression whose inputs have covariance eigenvalues proportional to 1/i^2.",
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
    def chance(self) -> float:
        """E[y^2] = d + noise^2."""
        return self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        z = normal(batch, self.num_points, self.num_features, generator=generator)
        scales = skewed_eigenvalues(self.num_features).sqrt().to(z.device)
        x = (z * scales) @ orthogonal(batch, self.num_features, generator=generator)
        weights = normal(batch, self.num_features, generator=generator)
        return linear(x, weights, noise=self.noise, generator=generator)

    def oracle(self) -> Learner:
        """Bayesian ridge regression: the inputs say nothing about w."""
        return linear_oracle(self.noise)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, averaging, least squares, ridge tuned by evidence, nearest neighbours."""
        return linear_baselines()
