"""What agents of linear bandits believe of the weights: ridge regression on the features of the arms that were pulled.

    A = ridge I + sum_i phi_i phi_i',    b = sum_i r_i phi_i

A is inverted by rank-one updates (Sherman & Morrison, 1950).
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.agents.base import require_family
from contexture.environments.linear_bandit import LinearBandit
from contexture.protocols import AgentCard


class LinearBelief(NamedTuple):
    """inverse: A^-1, [batch, dim, dim]; moment: b, [batch, dim]; the agent's own source of chance."""

    inverse: Tensor
    moment: Tensor
    generator: torch.Generator

    @property
    def weights(self) -> Float[Tensor, "batch dim"]:
        """A^-1 b."""
        return torch.einsum("bde,be->bd", self.inverse, self.moment)


@dataclass(frozen=True)
class LinearAgent:
    """An agent that goes by a linear model of the arms' features: it says in `act` how, and in `prior` what ridge."""

    card: ClassVar[AgentCard]

    environment: LinearBandit

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)

    @classmethod
    def example(cls) -> Self:
        """For the default linear bandit."""
        return cls(LinearBandit())

    @property
    def prior(self) -> float:
        """The ridge."""
        raise NotImplementedError

    def begin(self, batch: int, *, generator: torch.Generator) -> LinearBelief:
        """The ridge alone."""
        dim = self.environment.dim
        inverse = torch.eye(dim, dtype=torch.float64).expand(batch, dim, dim) / self.prior
        return LinearBelief(inverse, torch.zeros(batch, dim, dtype=torch.float64), generator)

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
        moment = state.moment + reward.to(torch.float64).unsqueeze(1) * features
        return state._replace(inverse=inverse, moment=moment)
