"""Linear regression whose last point is orthogonal to all earlier ones, so that they say nothing about it.

    x_last = |q| P q / |P q|,  q ~ N(0, I_d),  P the projector onto what x_1 .. x_{last-1} do not span

Garg et al. 2022: the right answer at the last point is zero, and a learner that answers otherwise guesses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, linear, normal
from contexture.tasks.references import linear_baselines, linear_oracle


def away_from(
    query: Float[Tensor, "batch features"], others: Float[Tensor, "batch points features"]
) -> Float[Tensor, "batch features"]:
    """The part of `query` orthogonal to `others`, at the query's length; needs fewer points than features."""
    basis: Tensor = torch.linalg.qr(others.mT).Q
    rest: Tensor = query - (basis @ (basis.mT @ query.unsqueeze(-1))).squeeze(-1)
    away: Tensor = rest * (query.norm(dim=-1, keepdim=True) / rest.norm(dim=-1, keepdim=True))
    return away


@dataclass(frozen=True, kw_only=True, slots=True)
class OrthogonalQueryRegression:
    """A linear function asked, last, at a point orthogonal to all that was shown; needs num_points <= d."""

    card: ClassVar[TaskCard] = TaskCard(
        name="orthogonal-query-regression",
        summary="Linear regression whose last point is orthogonal to all earlier ones.",
        paper="Garg et al.: What can transformers learn in-context?",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 8
    num_points: int = 8
    noise: float = 0.5

    def __post_init__(self) -> None:
        at_least(2, num_features=self.num_features, num_points=self.num_points)
        at_least(0, noise=self.noise)
        if self.num_points > self.num_features:
            raise InputError(
                f"{self.num_points} points leave no direction orthogonal to the first {self.num_points - 1} "
                f"in {self.num_features} dimensions: ask for at most {self.num_features}"
            )

    @property
    def chance(self) -> float:
        """E[y^2] = d + noise^2."""
        return self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        x[:, -1] = away_from(x[:, -1], x[:, :-1])
        weights = normal(batch, self.num_features, generator=generator)
        return linear(x, weights, noise=self.noise, generator=generator)

    def oracle(self) -> Learner:
        """Bayesian ridge regression, which answers zero at the last point."""
        return linear_oracle(self.noise)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, averaging, least squares, ridge tuned by evidence, nearest neighbours."""
        return linear_baselines()
