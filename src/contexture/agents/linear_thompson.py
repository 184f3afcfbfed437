"""Thompson sampling for linear bandits with a normal prior (Agrawal & Goyal, 2013, arXiv:1209.3352).

    theta ~ N(0, variance I), rewards ~ N(theta.phi_a, noise^2);    A = noise^2 / variance I + sum_i phi_i phi_i'
    theta | rewards ~ N(A^-1 b, noise^2 A^-1);    a draw is  A^-1 b + noise A^-1/2 g,  g ~ N(0, I)

Each step draws one theta and pulls the arm that is best under it. The prior is that of the environment's own worlds.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import greedy
from contexture.agents.linear import LinearAgent, LinearBelief
from contexture.errors import InputError
from contexture.protocols import AgentCard


@dataclass(frozen=True)
class LinearThompson(LinearAgent):
    """Pulls each arm as often as it is believed to be the best under a linear model. variance: 1 / dim unless given."""

    card: ClassVar[AgentCard] = AgentCard(
        name="linear-thompson",
        summary="Draws the weights of a linear model from their posterior, and pulls the arm that is best under them.",
        paper="Agrawal & Goyal, Thompson Sampling for Contextual Bandits with Linear Payoffs, arXiv:1209.3352",
        year=2013,
        kind="classical",
        families=frozenset({"linear-arms"}),
    )

    variance: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.environment.noise <= 0 or (self.variance is not None and self.variance <= 0):
            raise InputError(
                f"linear Thompson sampling needs noise and variance above zero, not {self.environment.noise} and "
                f"{self.variance}"
            )

    @property
    def prior(self) -> float:
        """noise^2 over the variance of each weight."""
        return self.environment.noise**2 / (self.variance or 1 / self.environment.dim)

    def drawn(
        self, state: LinearBelief, draws: Float[Tensor, "*draws batch dim"]
    ) -> Float[Tensor, "*draws batch arms"]:
        """What every arm would bring under the weights that standard normal draws make of the posterior."""
        values, vectors = torch.linalg.eigh(state.inverse)
        root = vectors * values.clamp(min=0).sqrt().unsqueeze(1) @ vectors.mT
        weights = state.weights + self.environment.noise * torch.einsum("bde,...be->...bd", root, draws)
        return weights @ self.environment.arms.to(torch.float64).mT

    def act(
        self, state: LinearBelief, observation: Float[Tensor, "batch features"]
    ) -> tuple[Categorical, LinearBelief]:
        """The best arm under one draw."""
        drawn = torch.randn(state.moment.shape, generator=state.generator, dtype=torch.float64)
        return greedy(self.drawn(state, drawn)), state
