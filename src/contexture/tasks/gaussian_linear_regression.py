"""Linear regression whose inputs have a variance of their own along every axis, and whose weights may have a mean.

    x_t ~ N(0, diag(variances)),  w ~ N(mean, I_d),  y_t = w.x_t + noise * N(0, 1)

The same axes for every episode, as in the theory of trained attention layers: Zhang, Frei, Bartlett 2023,
"Trained transformers learn linear models in-context", arXiv:2306.09927.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least, linear, normal
from contexture.tasks.references import linear_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianLinearRegression:
    """A linear function of inputs with these variances; every weight is drawn around `mean` with variance one.

    The oracle is the posterior mean under that prior.

    >>> GaussianLinearRegression(variances=(2.0, 1.0), mean=1.0, noise=0.5).chance
    6.25
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="gaussian-linear-regression",
        summary="A linear function of inputs with a variance of their own along every axis, the same in all episodes.",
        paper="Zhang et al.: Trained transformers learn linear models in-context",
        year=2023,
        episodes="pairs",
        metric="squared-error",
    )

    variances: tuple[float, ...] = (2.0, 1.0, 0.5, 0.25)
    mean: float = 0.0
    num_points: int = 25
    noise: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "variances", tuple(self.variances))
        at_least(1, num_points=self.num_points)
        above_zero(noise=self.noise)
        if not self.variances or min(self.variances) <= 0:
            raise InputError(f"inputs need positive variances, at least one, not {self.variances}")

    @property
    def num_features(self) -> int:
        """One for each variance."""
        return len(self.variances)

    @property
    def chance(self) -> float:
        """E[y^2] = (1 + mean^2) times the sum of variances, + noise^2."""
        return (1 + self.mean**2) * sum(self.variances) + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        scales = torch.tensor(self.variances, dtype=x.dtype, device=x.device).sqrt()
        weights = normal(batch, self.num_features, generator=generator) + self.mean
        return linear(x * scales, weights, noise=self.noise, generator=generator)

    def oracle(self) -> Learner:
        """Bayesian ridge regression around the prior's mean: the inputs say nothing about w."""
        mean = torch.full((self.num_features,), self.mean, dtype=torch.float64)
        return BayesRidge(prior_variance=1.0, noise_variance=self.noise**2, prior_mean=mean)

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, averaging, least squares, ridge tuned by evidence, nearest neighbours."""
        return linear_baselines()
