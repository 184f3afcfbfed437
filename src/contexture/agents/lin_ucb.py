"""LinUCB, confidence bounds on a linear model (Li et al., 2010, arXiv:1003.0146; Abbasi-Yadkori et al., 2011).

    A = ridge I + sum_i phi_i phi_i',    b = sum_i r_i phi_i,    theta = A^-1 b
    pull the arm of the highest  theta.phi_a + width sqrt(phi_a' A^-1 phi_a)

Pulling one arm teaches of all that share its features.
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
class LinUCB(LinearAgent):
    """Fits ridge regression to what the pulled arms' features brought, and pulls the arm that could be best."""

    card: ClassVar[AgentCard] = AgentCard(
        name="lin-ucb",
        summary="Pulls the arm with the highest confidence bound under a linear model of the arms' features.",
        paper="Li et al., A Contextual-Bandit Approach to Personalized News Recommendation, arXiv:1003.0146",
        year=2010,
        kind="classical",
        families=frozenset({"linear-arms"}),
    )

    width: float = field(default=1.0, kw_only=True)
    ridge: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.ridge > 0 and self.width >= 0):
            raise InputError(f"LinUCB needs ridge > 0 and width >= 0, not {self.ridge} and {self.width}")

    @property
    def prior(self) -> float:
        """The ridge."""
        return self.ridge

    def bounds(self, state: LinearBelief) -> Float[Tensor, "batch arms"]:
        """The upper confidence bound of every arm."""
        arms = self.environment.arms.to(torch.float64)
        spread = torch.einsum("ad,bde,ae->ba", arms, state.inverse, arms)
        return state.weights @ arms.mT + self.width * spread.clamp(min=0).sqrt()

    def act(
        self, state: LinearBelief, observation: Float[Tensor, "batch features"]
    ) -> tuple[Categorical, LinearBelief]:
        """The highest bound."""
        return greedy(self.bounds(state)), state
