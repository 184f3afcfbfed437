"""Every action alike: what any agent has to beat."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import require_family
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.protocols import AgentCard, Environment


class Nothing(NamedTuple):
    """An agent without memory: only the number of worlds, as a tensor [batch]."""

    batch: Tensor


@dataclass(frozen=True)
class RandomAgent:
    """Takes every action with the same probability."""

    card: ClassVar[AgentCard] = AgentCard(
        name="random",
        summary="Takes every action with the same probability.",
        kind="classical",
        families=frozenset({"arms", "linear-arms", "states", "features"}),
        waivers={"competence": "it is what the others are measured against"},
    )

    environment: Environment

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)

    @classmethod
    def example(cls) -> "RandomAgent":
        """For the default bandit."""
        return cls(GaussianBandit())

    def begin(self, batch: int, *, generator: torch.Generator) -> Nothing:
        """Nothing to remember."""
        return Nothing(torch.zeros(batch, device=generator.device))

    def act(self, state: Nothing, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Nothing]:
        """All alike."""
        flat = torch.ones(len(state.batch), self.environment.num_actions, dtype=torch.float64)
        return Categorical(probs=flat, validate_args=False), state

    def observe(
        self,
        state: Nothing,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> Nothing:
        """Nothing is learned."""
        return state
