"""Upper confidence bounds (Auer et al., 2002): optimism where little is known.

    pull the arm of the highest  mean_a + width sqrt(1 / n_a),  each arm once first

as Lee et al. (2023, arXiv:2306.14892) run it, without the logarithm of the original bound.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import CountingAgent, Counts, greedy
from contexture.errors import InputError
from contexture.protocols import AgentCard


@dataclass(frozen=True)
class UCB(CountingAgent):
    """Pulls the arm whose mean could be highest, as far as `width` standard errors of unit scale say."""

    card: ClassVar[AgentCard] = AgentCard(
        name="ucb",
        summary="Pulls the arm with the highest upper confidence bound.",
        paper="Auer et al., Finite-time Analysis of the Multiarmed Bandit Problem, Machine Learning 47",
        year=2002,
        kind="classical",
        families=frozenset({"arms", "linear-arms"}),
    )

    width: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 0:
            raise InputError(f"width is zero or more, not {self.width}")

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The highest bound; an arm never pulled has none that is higher."""
        return greedy(state.means + self.width * state.pulls.clamp(min=1).rsqrt()), state
