"""Upper confidence bounds (Auer et al., 2002): optimism where little is known.

    pull the arm of the highest  mean_a + width sqrt(1 / n_a),  each arm once first

as Lee et al. (2023, arXiv:2306.14892) run it, without the logarithm of the original bound.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import Counts, count, greedy, no_counts, require_family
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.errors import InputError
from contexture.protocols import AgentCard, Environment


@dataclass(frozen=True)
class UCB:
    """Pulls the arm whose mean could be highest, as far as `width` standard errors of unit scale say."""

    card: ClassVar[AgentCard] = AgentCard(
        name="ucb",
        summary="Pulls the arm with the highest upper confidence bound.",
        paper="Auer et al., Finite-time Analysis of the Multiarmed Bandit Problem, Machine Learning 47",
        year=2002,
        kind="classical",
        families=frozenset({"arms", "linear-arms"}),
    )

    environment: Environment
    width: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)
        if self.width < 0:
            raise InputError(f"width is zero or more, not {self.width}")

    @classmethod
    def example(cls) -> "UCB":
        """For the default bandit."""
        return cls(GaussianBandit())

    def begin(self, batch: int, *, generator: torch.Generator) -> Counts:
        """No pulls."""
        return no_counts(batch, self.environment.num_actions, generator)

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The highest bound; an arm never pulled has none that is higher."""
        return greedy(state.means + self.width * state.pulls.clamp(min=1).rsqrt()), state

    def observe(
        self,
        state: Counts,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> Counts:
        """Count the pull."""
        return count(state, action, reward)
