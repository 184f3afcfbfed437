"""Linear regression whose weights are mostly zero.

    support: `num_nonzero` of d coordinates, uniformly;  w ~ N(0, 1) on it, 0 elsewhere;  x_t ~ N(0, I_d)

Garg et al. 2022: d = 20 with 3 non-zeros, where the Lasso beats least squares while examples are few.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.oracles.mixture_posterior import MixturePosterior
from contexture.learners.oracles.priors import SparsePrior
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, linear, normal, subsets
from contexture.tasks.inputs import StandardNormal
from contexture.tasks.references import sparse_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseLinearRegression:
    """A linear function of few of the inputs; the oracle weighs every support by its evidence."""

    card: ClassVar[TaskCard] = TaskCard(
        name="sparse-linear-regression",
        summary="A linear function of a few of the inputs, which ones is hidden.",
        paper="Garg et al.: What can transformers learn in-context?",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 20
    num_points: int = 41
    num_nonzero: int = 3
    noise: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, num_nonzero=self.num_nonzero)
        at_least(0, noise=self.noise)
        if self.num_nonzero > self.num_features:
            raise InputError(f"{self.num_nonzero} non-zero weights do not fit into {self.num_features} features")

    @property
    def inputs(self) -> StandardNormal:
        """x ~ N(0, I)."""
        return StandardNormal(num_features=self.num_features)

    @property
    def chance(self) -> float:
        """E[y^2] = num_nonzero + noise^2."""
        return self.num_nonzero + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, features]."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        support = subsets(batch, self.num_features, self.num_nonzero, generator=generator)
        values = normal(batch, self.num_nonzero, generator=generator)
        weights = x.new_zeros(batch, self.num_features).scatter(1, support, values)
        return linear(x, weights, noise=self.noise, generator=generator)

    def oracle(self) -> Learner | None:
        """The posterior mean over all supports; None without noise, where no closed form is at hand."""
        if not self.noise:
            return None
        return MixturePosterior(prior=SparsePrior(num_nonzero=self.num_nonzero), noise_variance=self.noise**2)

    def baselines(self) -> Mapping[str, Learner]:
        """The standard family's baselines and the Lasso."""
        return sparse_baselines()
