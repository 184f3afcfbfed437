"""Linear regression whose weights come from one of two Gaussians.

    w = +-centre e_1 + N(0, I_d), either sign equally likely;  x_t ~ N(0, I_d)

Panwar, Ahuja, Goyal 2024, "In-context learning through the Bayesian prism": the posterior mean is a sum of two ridge
regressions around the centres, weighted by evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.oracles.mixture_posterior import MixturePosterior
from contexture.learners.oracles.priors import TwoCentresPrior
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least, integers, linear, normal
from contexture.tasks.inputs import StandardNormal
from contexture.tasks.references import linear_baselines, linear_oracle


@dataclass(frozen=True, kw_only=True, slots=True)
class GaussianMixtureRegression:
    """A linear function whose first weight is near +centre or -centre."""

    card: ClassVar[TaskCard] = TaskCard(
        name="gaussian-mixture-regression",
        summary="Linear regression whose weights come from one of two Gaussians, centred at +3 and -3 on w_1.",
        paper="Panwar, Ahuja, Goyal: In-context learning through the Bayesian prism",
        year=2024,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 8
    num_points: int = 25
    noise: float = 0.5
    centre: float = 3.0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        above_zero(noise=self.noise)

    @property
    def inputs(self) -> StandardNormal:
        """x ~ N(0, I)."""
        return StandardNormal(num_features=self.num_features)

    @property
    def chance(self) -> float:
        """E[y^2] = d + centre^2 + noise^2."""
        return self.num_features + self.centre**2 + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], component [batch] (1 is the centre -centre)."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        weights = normal(batch, self.num_features, generator=generator)
        component = integers(batch, below=2, generator=generator)
        weights[:, 0] += self.centre * (1 - 2 * component)
        return linear(x, weights, noise=self.noise, generator=generator, latents={"component": component})

    def oracle(self) -> Learner:
        """The posterior mean: ridge around each centre, weighted by evidence."""
        return MixturePosterior(prior=TwoCentresPrior(centre=self.centre), noise_variance=self.noise**2)

    def baselines(self) -> Mapping[str, Learner]:
        """Ridge regression around zero, and the standard family's baselines."""
        return {"bayes-ridge": linear_oracle(self.noise), **linear_baselines()}
