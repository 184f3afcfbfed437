"""Regression on a hidden one of a few known components.

    components w_1 .. w_m ~ N(0, I_d), drawn once by a seed of their own;  each episode takes one of them
    optimum: sum_j softmax_j(-|Y - X w_j|^2 / (2 noise^2)) w_j                            (exponential weights)

Pathak, Sen, Kong, Das 2024, "Transformers can optimally learn regression mixture models". The same model as
finite-linear-regression at that paper's sizes, beside its own baselines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.discrete_posterior import DiscretePosterior
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least
from contexture.tasks.finite_linear_regression import from_pool, pool
from contexture.tasks.references import linear_baselines, linear_oracle


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearRegressionMixture:
    """One of `num_components` known linear functions, over long prompts."""

    card: ClassVar[TaskCard] = TaskCard(
        name="linear-regression-mixture",
        summary="Linear regression on a hidden one of a few known components.",
        paper="Pathak et al.: Transformers can optimally learn regression mixture models",
        year=2024,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 20
    num_points: int = 60
    noise: float = 0.5
    num_components: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, num_components=self.num_components)
        above_zero(noise=self.noise)

    @property
    def weights(self) -> Float[Tensor, "components features"]:
        """The known components."""
        return pool(self.num_components, self.num_features, self.seed)

    @property
    def chance(self) -> float:
        """E[y^2] = mean |w_j|^2 + noise^2 over these very components."""
        return float(self.weights.square().sum(1).mean()) + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], component [batch]."""
        return from_pool(self.weights, batch, self.num_points, self.noise, generator=generator)

    def oracle(self) -> Learner:
        """The posterior mean over the components."""
        return DiscretePosterior(self.weights, noise_variance=self.noise**2)

    def baselines(self) -> Mapping[str, Learner]:
        """Ridge regression that would be right for new functions, and the standard family's baselines."""
        return {"bayes-ridge": linear_oracle(self.noise), **linear_baselines()}
