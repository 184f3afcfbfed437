"""Sine waves of one frequency, the toy regression of meta-learning.

    y_t = a sin(x_t + p) + noise * N(0, 1),  a ~ U(0.1, 5),  p ~ U(-pi, pi),  x_t ~ U(-5, 5)

Finn, Abbeel, Levine 2017, "Model-agnostic meta-learning"; there p ~ U(0, pi), here the whole circle, so that the target
has mean zero.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, noisy, uniform
from contexture.tasks.inputs import Uniform
from contexture.tasks.references import nonlinear_baselines

LOWEST, HIGHEST = 0.1, 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sine:
    """A sine wave of hidden amplitude and phase; the amplitude's uniform prior leaves no closed-form oracle."""

    card: ClassVar[TaskCard] = TaskCard(
        name="sine",
        summary="A sine wave of hidden amplitude and phase.",
        paper="Finn, Abbeel, Levine: Model-agnostic meta-learning",
        year=2017,
        episodes="pairs",
        metric="squared-error",
    )

    num_points: int = 25
    noise: float = 0.0

    def __post_init__(self) -> None:
        at_least(1, num_points=self.num_points)
        at_least(0, noise=self.noise)

    @property
    def inputs(self) -> Uniform:
        """x ~ U(-5, 5)."""
        return Uniform(num_features=1, reach=5.0)

    @property
    def chance(self) -> float:
        """E[y^2] = E[a^2] / 2 + noise^2."""
        mean_square = (HIGHEST**3 - LOWEST**3) / (3 * (HIGHEST - LOWEST))
        return mean_square / 2 + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: amplitude [batch], phase [batch]."""
        x = uniform(batch, self.num_points, 1, low=-self.inputs.reach, high=self.inputs.reach, generator=generator)
        amplitude = uniform(batch, low=LOWEST, high=HIGHEST, generator=generator)
        phase = uniform(batch, low=-math.pi, high=math.pi, generator=generator)
        clean = amplitude.unsqueeze(1) * (x.squeeze(-1) + phase.unsqueeze(1)).sin()
        return noisy(x, clean, noise=self.noise, generator=generator, latents={"amplitude": amplitude, "phase": phase})

    def oracle(self) -> None:
        """None: the posterior mean has no closed form."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, least squares, ridge tuned by evidence, nearest neighbours, a Gaussian process."""
        return nonlinear_baselines()
