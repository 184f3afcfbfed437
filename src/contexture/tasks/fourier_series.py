"""Fourier series with Gaussian coefficients.

    y_t = a_0 + sum_{n=1..N} a_n cos(n pi x_t / L) + b_n sin(n pi x_t / L) + noise * N(0, 1)
    a_n, b_n ~ N(0, 1),  x_t ~ U(-L, L)

Panwar, Ahuja, Goyal 2024, "In-context learning through the Bayesian prism": N = 10, L = 5.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.oracles.features import FourierFeatures, OnFeatures
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least, noisy, normal, uniform
from contexture.tasks.inputs import Uniform
from contexture.tasks.references import linear_oracle, nonlinear_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class FourierSeries:
    """A periodic function of one input; the oracle is Bayesian ridge regression on the sines and cosines."""

    card: ClassVar[TaskCard] = TaskCard(
        name="fourier-series",
        summary="A Fourier series of one input with Gaussian coefficients.",
        paper="Panwar, Ahuja, Goyal: In-context learning through the Bayesian prism",
        year=2024,
        episodes="pairs",
        metric="squared-error",
    )

    num_frequencies: int = 10
    half_period: float = 5.0
    num_points: int = 41
    noise: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, num_frequencies=self.num_frequencies, num_points=self.num_points)
        above_zero(half_period=self.half_period)
        at_least(0, noise=self.noise)

    @property
    def inputs(self) -> Uniform:
        """x ~ U(-L, L)."""
        return Uniform(num_features=1, reach=self.half_period)

    @property
    def features(self) -> FourierFeatures:
        """The constant, cosines and sines that the function is linear in."""
        return FourierFeatures(num_frequencies=self.num_frequencies, half_period=self.half_period)

    @property
    def chance(self) -> float:
        """E[y^2] = 1 + N + noise^2: over a period, sines and cosines have mean square 1/2."""
        return 1 + self.num_frequencies + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, 1 + 2 N], in the order a_0, a_1 .. a_N, b_1 .. b_N."""
        reach = self.half_period
        x = uniform(batch, self.num_points, 1, low=-reach, high=reach, generator=generator)
        weights = normal(batch, 1 + 2 * self.num_frequencies, generator=generator)
        clean = (self.features(x) @ weights.unsqueeze(-1)).squeeze(-1)
        return noisy(x, clean, noise=self.noise, generator=generator, latents={"weights": weights})

    def oracle(self) -> Learner:
        """Bayesian ridge regression on the constant, cosines and sines."""
        return OnFeatures(features=self.features, learner=linear_oracle(self.noise))

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, least squares, ridge tuned by evidence, nearest neighbours, a Gaussian process."""
        return nonlinear_baselines()
