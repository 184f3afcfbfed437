"""LinUCB, confidence bounds on a linear model (Li et al., 2010, arXiv:1003.0146; Abbasi-Yadkori et al., 2011).

    A = ridge I + sum_i phi_i phi_i',    b = sum_i r_i phi_i,    theta = A^-1 b
    pull the arm of the highest  theta.phi_a + width sqrt(phi_a' A^-1 phi_a)

Pulling one arm teaches of all that share its features. A is inverted by rank-one updates (Sherman & Morrison, 1950).
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import greedy, require_family
from contexture.environments.linear_bandit import LinearBandit
from contexture.errors import InputError
from contexture.protocols import AgentCard


class LinearBelief(NamedTuple):
    """inverse: A^-1, [batch, dim, dim]; moment: b, [batch, dim]."""

    inverse: Tensor
    moment: Tensor


@dataclass(frozen=True)
class LinUCB:
    """Fits ridge regression to what the pulled arms' features brought, and pulls the arm that could be best."""

    card: ClassVar[AgentCard] = AgentCard(
        name="lin-ucb",
        summary="Pulls the arm with the highest confidence bound under a linear model of the arms' features.",
        paper="Li et al., A Contextual-Bandit Approach to Personalized News Recommendation, arXiv:1003.0146",
        year=2010,
        kind="classical",
        families=frozenset({"linear-arms"}),
    )

    environment: LinearBandit
    width: float = field(default=1.0, kw_only=True)
    ridge: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)
        if not (self.ridge > 0 and self.width >= 0):
            raise InputError(f"LinUCB needs ridge > 0 and width >= 0, not {self.ridge} and {self.width}")

    @classmethod
    def example(cls) -> "LinUCB":
        """For the default linear bandit."""
        return cls(LinearBandit())

    def begin(self, batch: int, *, generator: torch.Generator) -> LinearBelief:
        """The ridge alone."""
        dim = self.environment.dim
        inverse = torch.eye(dim, dtype=torch.float64).expand(batch, dim, dim) / self.ridge
        return LinearBelief(inverse, torch.zeros(batch, dim, dtype=torch.float64))

    def bounds(self, state: LinearBelief) -> Float[Tensor, "batch arms"]:
        """The upper confidence bound of every arm."""
        arms = self.environment.arms.to(torch.float64)
        spread = torch.einsum("ad,bde,ae->ba", arms, state.inverse, arms)
        weights = torch.einsum("bde,be->bd", state.inverse, state.moment)
        return weights @ arms.mT + self.width * spread.clamp(min=0).sqrt()

    def act(
        self, state: LinearBelief, observation: Float[Tensor, "batch features"]
    ) -> tuple[Categorical, LinearBelief]:
        """The highest bound."""
        return greedy(self.bounds(state)), state

    def observe(
        self,
        state: LinearBelief,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> LinearBelief:
        """Add the pulled arm's features and what they brought."""
        features = self.environment.arms.to(torch.float64)[action]
        pulled = torch.einsum("bde,be->bd", state.inverse, features)
        gain = 1 + (features * pulled).sum(1)
        inverse = state.inverse - pulled.unsqueeze(2) * pulled.unsqueeze(1) / gain[:, None, None]
        return LinearBelief(inverse, state.moment + reward.to(torch.float64).unsqueeze(1) * features)
