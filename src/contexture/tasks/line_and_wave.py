"""Lines, waves, and blends of the two: functions of one input in two families that a prompt has to tell apart.

    y_t = wave (a sin(f x_t) + b cos(f x_t)) + (1 - wave) (c sqrt(3) x_t / pi + d) / sqrt(2) + noise * N(0, 1)
    a, b, c, d ~ N(0, 1),  x_t ~ U(-pi, pi)

wave = 1: waves of frequency f;  wave = 0: lines;  between: blends. Lines and waves of a whole frequency have E[clean^2]
= 1. Lines and sines as families, and their convex combinations: Yadlowsky, Doshi, Tripuraneni 2023, "Pretraining data
mixtures enable narrow model selection capabilities in transformer models".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.oracles.features import OnFeatures
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import above_zero, at_least, noisy, normal, uniform
from contexture.tasks.inputs import Uniform
from contexture.tasks.references import linear_oracle, nonlinear_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class LineAndWaveFeatures:
    """phi(x) with y = w.phi(x) for w ~ N(0, I_4): the wave's two columns and the line's two."""

    wave: float
    frequency: float

    def __call__(self, x: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows four"]:
        """Four columns for x's one."""
        angle, line = self.frequency * x, (1 - self.wave) / math.sqrt(2)
        slope = line * math.sqrt(3) / math.pi * x
        return torch.cat([self.wave * angle.sin(), self.wave * angle.cos(), slope, torch.full_like(x, line)], -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LineAndWave:
    """A function of one input that is a line, a wave, or a blend; the oracle is Bayesian ridge on its columns.

    >>> LineAndWave(wave=0.5, noise=0.5).chance
    0.75
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="line-and-wave",
        summary="A line, a sine wave of one frequency, or a blend of the two, of one input.",
        paper="Yadlowsky, Doshi, Tripuraneni: Pretraining data mixtures enable narrow model selection capabilities",
        year=2023,
        episodes="pairs",
        metric="squared-error",
    )

    wave: float = 0.5
    frequency: float = 1.0
    num_points: int = 16
    noise: float = 0.3

    def __post_init__(self) -> None:
        at_least(1, num_points=self.num_points)
        above_zero(noise=self.noise, frequency=self.frequency)
        if not 0 <= self.wave <= 1:
            raise InputError(f"the wave's share must lie between 0 and 1, not {self.wave:g}")

    @property
    def inputs(self) -> Uniform:
        """x ~ U(-pi, pi)."""
        return Uniform(num_features=1, reach=math.pi)

    @property
    def features(self) -> LineAndWaveFeatures:
        """The columns that the function is linear in."""
        return LineAndWaveFeatures(wave=self.wave, frequency=self.frequency)

    @property
    def chance(self) -> float:
        """E[y^2] = wave^2 + (1 - wave)^2 + noise^2: the squares of sine and cosine sum to one."""
        return self.wave**2 + (1 - self.wave) ** 2 + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, 4], in the order a, b, c, d."""
        x = uniform(batch, self.num_points, 1, low=-math.pi, high=math.pi, generator=generator)
        weights = normal(batch, 4, generator=generator)
        clean = (self.features(x) @ weights.unsqueeze(-1)).squeeze(-1)
        return noisy(x, clean, noise=self.noise, generator=generator, latents={"weights": weights})

    def oracle(self) -> Learner:
        """Bayesian ridge regression on the columns."""
        return OnFeatures(features=self.features, learner=linear_oracle(self.noise))

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, least squares, ridge tuned by evidence, nearest neighbours, a Gaussian process."""
        return nonlinear_baselines()
