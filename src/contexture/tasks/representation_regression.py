"""Linear functions of a fixed representation of x, learnt in context.

    y_t = w . Phi(x_t) + noise * N(0, 1),   w ~ N(0, I_d),  x_t ~ N(0, I_d);   Phi the same in every episode

Guo, Hu, Mei, Wang, Xiong, Savarese, Bai 2023, "How do transformers learn in-context beyond simple functions? A case
study on learning with representations": d = 20, 41 points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch

from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.ols import OLS
from contexture.learners.oracles.features import OnFeatures
from contexture.learners.oracles.representation import Representation
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.randomness import generator as derived
from contexture.tasks.draws import at_least, noisy, normal
from contexture.tasks.references import nonlinear_baselines


@lru_cache(maxsize=64)
def mean_square(num_features: int, num_layers: int, seed: int) -> float:
    """E|Phi(x)|^2, exactly d for up to one layer and otherwise the mean over half a million x."""
    if num_layers < 2:
        return float(num_features)
    x = normal(1 << 19, num_features, generator=derived("mean square", seed))
    return float(Representation(num_layers=num_layers, seed=seed)(x).square().sum(1).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class RepresentationRegression:
    """A linear function of what a fixed network makes of x; the oracle is ridge regression on that."""

    card: ClassVar[TaskCard] = TaskCard(
        name="representation-regression",
        summary="A linear function of a representation of x that is fixed for all episodes.",
        paper="Guo et al.: How do transformers learn in-context beyond simple functions?",
        year=2023,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 4
    num_points: int = 21
    num_layers: int = 2
    noise: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        at_least(0, num_layers=self.num_layers, noise=self.noise)

    @property
    def representation(self) -> Representation:
        """Phi."""
        return Representation(num_layers=self.num_layers, seed=self.seed)

    @property
    def chance(self) -> float:
        """E[y^2] = E|Phi(x)|^2 + noise^2."""
        return mean_square(self.num_features, self.num_layers, self.seed) + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], represented [batch, time, features]."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        weights = normal(batch, self.num_features, generator=generator)
        represented = self.representation(x)
        clean = (represented @ weights.unsqueeze(-1)).squeeze(-1)
        return noisy(
            x,
            clean,
            noise=self.noise,
            generator=generator,
            latents={"weights": weights, "represented": represented},
        )

    def oracle(self) -> Learner:
        """Ridge regression on the representation, or least squares where there is no noise."""
        exact = BayesRidge(prior_variance=1.0, noise_variance=self.noise**2) if self.noise else OLS()
        return OnFeatures(features=self.representation, learner=exact)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, least squares, ridge tuned by evidence, nearest neighbours, a Gaussian process: all on x."""
        return nonlinear_baselines()
