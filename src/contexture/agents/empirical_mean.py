"""Greed: the arm whose rewards had the highest mean so far, each tried once first."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import Counts, count, greedy, no_counts, require_family
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.protocols import AgentCard, Environment


@dataclass(frozen=True)
class EmpiricalMean:
    """Pulls every arm once, then always the one with the highest mean: it may settle on a wrong arm for good."""

    card: ClassVar[AgentCard] = AgentCard(
        name="empirical-mean",
        summary="Pulls the arm with the highest mean reward so far, after trying each once.",
        paper="Lattimore & Szepesvari, Bandit Algorithms",
        year=2020,
        kind="classical",
        families=frozenset({"arms", "linear-arms"}),
    )

    environment: Environment

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)

    @classmethod
    def example(cls) -> "EmpiricalMean":
        """For the default bandit."""
        return cls(GaussianBandit())

    def begin(self, batch: int, *, generator: torch.Generator) -> Counts:
        """No pulls."""
        return no_counts(batch, self.environment.num_actions, generator)

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The highest mean."""
        return greedy(state.means), state

    def observe(
        self,
        state: Counts,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> Counts:
        """Count the pull."""
        return count(state, action, reward)
