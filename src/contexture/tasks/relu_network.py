"""Two-layer ReLU networks as functions to be learnt in context.

    y_t = sqrt(2 / h) sum_j v_j max(0, u_j.x_t),  u_j ~ N(0, I_d),  v_j ~ N(0, 1),  x_t ~ N(0, I_d),  h = num_hidden

Garg et al. 2022: d = 20, h = 100, 101 points, no noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, noisy, normal
from contexture.tasks.inputs import StandardNormal
from contexture.tasks.references import nonlinear_baselines


@dataclass(frozen=True, kw_only=True, slots=True)
class ReluNetwork:
    """A two-layer ReLU network with Gaussian weights; no optimal predictor is known in closed form."""

    card: ClassVar[TaskCard] = TaskCard(
        name="relu-network",
        summary="A two-layer ReLU network with random Gaussian weights.",
        paper="Garg et al.: What can transformers learn in-context?",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 20
    num_points: int = 101
    num_hidden: int = 100
    noise: float = 0.0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, num_hidden=self.num_hidden)
        at_least(0, noise=self.noise)

    @property
    def inputs(self) -> StandardNormal:
        """x ~ N(0, I)."""
        return StandardNormal(num_features=self.num_features)

    @property
    def chance(self) -> float:
        """E[y^2] = d + noise^2: half of each hidden unit's d is cut off, and the factor 2 restores it."""
        return self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: inner [batch, features, hidden], outer [batch, hidden]."""
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        inner = normal(batch, self.num_features, self.num_hidden, generator=generator)
        outer = normal(batch, self.num_hidden, generator=generator)
        hidden = (x @ inner).relu_()
        clean = math.sqrt(2 / self.num_hidden) * (hidden @ outer.unsqueeze(-1)).squeeze(-1)
        return noisy(x, clean, noise=self.noise, generator=generator, latents={"inner": inner, "outer": outer})

    def oracle(self) -> None:
        """None: the posterior mean has no closed form."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, least squares, ridge tuned by evidence, nearest neighbours, a Gaussian process."""
        return nonlinear_baselines()
