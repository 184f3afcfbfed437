"""Greed: the arm whose rewards had the highest mean so far, each tried once first."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import CountingAgent, Counts, greedy
from contexture.protocols import AgentCard


@dataclass(frozen=True)
class EmpiricalMean(CountingAgent):
    """Pulls every arm once, then always the one with the highest mean: it may settle on a wrong arm for good."""

    card: ClassVar[AgentCard] = AgentCard(
        name="empirical-mean",
        summary="Pulls the arm with the highest mean reward so far, after trying each once.",
        paper="Lattimore & Szepesvari, Bandit Algorithms",
        year=2020,
        kind="classical",
        families=frozenset({"arms", "linear-arms"}),
    )

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The highest mean."""
        return greedy(state.means), state
