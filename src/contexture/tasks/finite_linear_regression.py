"""Linear regression on finitely many known functions.

    a pool w_1 .. w_M, drawn once from N(0, I_d) by a seed of its own;  each episode takes one of them

Raventós, Paul, Chen, Ganguli 2023, "Pretraining task diversity and the emergence of non-Bayesian in-context learning
for regression": d = 8, 16 points, noise 0.5, M from 2 to 2^20.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.discrete_posterior import DiscretePosterior
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.randomness import generator as derived
from contexture.tasks.draws import above_zero, at_least, integers, linear, normal
from contexture.tasks.references import linear_baselines, linear_oracle


@lru_cache(maxsize=16)
def pool(num_tasks: int, num_features: int, seed: int) -> Float[Tensor, "tasks features"]:
    """The known weights: the same for the same numbers; a larger pool of one seed is another draw."""
    return normal(num_tasks, num_features, generator=derived(seed, "pool", num_tasks, num_features))


def from_pool(
    weights: Float[Tensor, "tasks features"], batch: int, num_points: int, noise: float, *, generator: torch.Generator
) -> Pairs:
    """Episodes of standard normal inputs, each with one of the weights; latents: weights and component [batch]."""
    x = normal(batch, num_points, weights.shape[1], generator=generator)
    component = integers(batch, below=weights.shape[0], generator=generator)
    chosen = weights.to(x.device)[component]
    return linear(x, chosen, noise=noise, generator=generator, latents={"component": component})


@dataclass(frozen=True, kw_only=True, slots=True)
class FiniteLinearRegression:
    """One of `num_tasks` known linear functions; the oracle is the posterior mean over them (dMMSE)."""

    card: ClassVar[TaskCard] = TaskCard(
        name="finite-linear-regression",
        summary="Linear regression on one of finitely many functions, drawn once by a seed of their own.",
        paper="Raventós et al.: Pretraining task diversity and the emergence of non-Bayesian in-context learning",
        year=2023,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 8
    num_points: int = 16
    noise: float = 0.5
    num_tasks: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, num_tasks=self.num_tasks)
        above_zero(noise=self.noise)

    @property
    def weights(self) -> Float[Tensor, "tasks features"]:
        """The known weights."""
        return pool(self.num_tasks, self.num_features, self.seed)

    @property
    def chance(self) -> float:
        """E[y^2] = mean |w_j|^2 + noise^2 over this very pool."""
        return float(self.weights.square().sum(1).mean()) + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features], component [batch]."""
        return from_pool(self.weights, batch, self.num_points, self.noise, generator=generator)

    def oracle(self) -> Learner:
        """The posterior mean over the pool."""
        return DiscretePosterior(self.weights, noise_variance=self.noise**2)

    def baselines(self) -> Mapping[str, Learner]:
        """Ridge regression that would be right for new functions, and the standard family's baselines."""
        return {"bayes-ridge": linear_oracle(self.noise), **linear_baselines()}
