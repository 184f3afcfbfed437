"""Linear regression whose weights are either Gaussian or signs.

    w ~ N(0, I_d), or with probability `sign_share` uniform over {-1, 1}^d;  x_t ~ N(0, I_d)

Panwar, Ahuja, Goyal 2024, "In-context learning through the Bayesian prism". E[|w|^2] = d in both families.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.oracles.mixture_posterior import MixturePosterior
from contexture.learners.oracles.priors import DenseOrSignsPrior
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least, integers, linear, normal, uniform
from contexture.tasks.inputs import StandardNormal
from contexture.tasks.references import linear_baselines, linear_oracle

MOST_ENUMERATED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseSignMixture:
    """A linear function whose weights are Gaussian or signs; which of the two is hidden.

    The oracle enumerates the 2^d sign vectors, so it is None above 12 features.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="dense-sign-mixture",
        summary="Linear regression whose weights are either Gaussian or a vector of signs.",
        paper="Panwar, Ahuja, Goyal: In-context learning through the Bayesian prism",
        year=2024,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 8
    num_points: int = 25
    noise: float = 0.5
    sign_share: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points)
        above_zero(noise=self.noise)
        if not 0 < self.sign_share < 1:
            raise InputError(f"sign_share must lie between 0 and 1, not {self.sign_share:g}")

    @property
    def inputs(self) -> StandardNormal:
        """x ~ N(0, I)."""
        return StandardNormal(num_features=self.num_features)

    @property
    def chance(self) -> float:
        """E[y^2] = d + noise^2."""
        return self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], component [batch] (1 is signs)."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        dense = normal(batch, self.num_features, generator=generator)
        signs = 2.0 * integers(batch, self.num_features, below=2, generator=generator) - 1
        component = (uniform(batch, generator=generator) < self.sign_share).long()
        weights = torch.where(component.bool().unsqueeze(1), signs.to(dense), dense)
        return linear(x, weights, noise=self.noise, generator=generator, latents={"component": component})

    def oracle(self) -> Learner | None:
        """The posterior mean over the dense family and every sign vector."""
        if self.num_features > MOST_ENUMERATED:
            return None
        return MixturePosterior(prior=DenseOrSignsPrior(sign_share=self.sign_share), noise_variance=self.noise**2)

    def baselines(self) -> Mapping[str, Learner]:
        """Ridge regression that ignores signs, and the standard family's baselines."""
        return {"bayes-ridge": linear_oracle(self.noise), **linear_baselines()}
