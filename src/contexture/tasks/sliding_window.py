"""Linear functions of a sliding window of inputs, learnt in context: the order of the examples matters.

    y_t = sum_{j<length} w_j . x_{t-j} / sqrt(length) + noise * N(0, 1),   x_s = 0 for s < 1
    w_j ~ N(0, I_d),  x_t ~ N(0, I_d)

Campbell, Guo, Hu, Vir, Hsiao 2023, "Can transformers learn sequential function classes in context?".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.ols import OLS
from contexture.learners.oracles.window import OnWindow, windows
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, noisy, normal
from contexture.tasks.references import linear_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class SlidingWindow:
    """A linear function of the last `length` inputs; the oracle is ridge regression on the window.

    >>> task = SlidingWindow(num_features=2, num_points=3, length=2, noise=0.0)
    >>> round(task.chance, 4)
    1.6667
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="sliding-window",
        summary="A linear function of the last few inputs, the latest included.",
        paper="Campbell et al.: Can transformers learn sequential function classes in context?",
        year=2023,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 2
    num_points: int = 25
    length: int = 3
    noise: float = 0.1

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, length=self.length)
        at_least(0, noise=self.noise)

    @property
    def chance(self) -> float:
        """E[y^2] = d times the mean share of the window that is filled, + noise^2."""
        filled = sum(min(t, self.length) for t in range(1, self.num_points + 1))
        return self.num_features * filled / (self.num_points * self.length) + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: weights [batch, length * features], the latest input's first, scaled as they act."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        weights = normal(batch, self.length * self.num_features, generator=generator) / math.sqrt(self.length)
        clean = (windows(x, self.length) @ weights.unsqueeze(-1)).squeeze(-1)
        return noisy(x, clean, noise=self.noise, generator=generator, latents={"weights": weights})

    def oracle(self) -> Learner:
        """The posterior mean of the weights over the window; least squares where there is no noise."""
        exact = BayesRidge(prior_variance=1 / self.length, noise_variance=self.noise**2) if self.noise else OLS()
        return OnWindow(length=self.length, learner=exact)

    def baselines(self) -> Mapping[str, Learner]:
        """Those of functions that are linear in the last input, which see nothing of the window."""
        return linear_baselines()
