"""The behaviour that decision models are trained on (Lee et al., 2023, arXiv:2306.14892): one of its own per world.

    p = (1 - e) d + e 1_a,    d ~ Dirichlet(1, .., 1),  a any action,  e any of 0, 1/10, .., 1

It never looks at what it earns, so its pulls say nothing about which arm is best but by their rewards.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import one_hot

from contexture.agents.base import require_family
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.protocols import AgentCard, Environment

GRID = 10


class Habit(NamedTuple):
    """The probability of every action, [batch, actions]."""

    probabilities: Tensor


@dataclass(frozen=True)
class MixedPolicy:
    """Takes actions with probabilities of its own in every world, some of them nearly sure of one action."""

    card: ClassVar[AgentCard] = AgentCard(
        name="mixed-policy",
        summary="Takes actions with probabilities drawn once for each world, and learns nothing.",
        paper="Lee et al., Supervised Pretraining Can Learn In-Context Reinforcement Learning, arXiv:2306.14892",
        year=2023,
        kind="classical",
        families=frozenset({"arms", "linear-arms", "states", "features"}),
        waivers={"competence": "it makes data for others and learns nothing"},
    )

    environment: Environment

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)

    @classmethod
    def example(cls) -> "MixedPolicy":
        """For the default bandit."""
        return cls(GaussianBandit())

    def begin(self, batch: int, *, generator: torch.Generator) -> Habit:
        """Draw the probabilities; normalised exponentials are a draw from the flat Dirichlet distribution."""
        actions = self.environment.num_actions
        drawn = -torch.log1p(-torch.rand(batch, actions, generator=generator, dtype=torch.float64))
        share = torch.randint(GRID + 1, (batch, 1), generator=generator) / GRID
        favourite = one_hot(torch.randint(actions, (batch,), generator=generator), actions)
        return Habit((1 - share) * drawn / drawn.sum(1, keepdim=True) + share * favourite)

    def act(self, state: Habit, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Habit]:
        """As ever."""
        return Categorical(probs=state.probabilities, validate_args=False), state

    def observe(
        self,
        state: Habit,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> Habit:
        """Nothing is learned."""
        return state
