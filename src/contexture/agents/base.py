"""What agents share: the check that they fit an environment, counts of what arms brought, and sure choices."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import one_hot

from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.errors import InputError
from contexture.protocols import AgentCard, Environment


def require_family(card: AgentCard, environment: Environment) -> None:
    """InputError if the agent cannot act in such an environment."""
    if environment.card.family not in card.families:
        raise InputError(
            f"the agent {card.name!r} acts in environments of the kind {' or '.join(sorted(card.families))}, "
            f"and {environment.card.name!r} is one of {environment.card.family}"
        )


class Counts(NamedTuple):
    """How often each arm was pulled and what it brought in all, [batch, arms]; the agent's own source of chance."""

    pulls: Tensor
    sums: Tensor
    generator: torch.Generator

    @property
    def means(self) -> Float[Tensor, "batch arms"]:
        """The mean reward of each arm; infinite before its first pull, so that every arm is tried."""
        return torch.where(self.pulls > 0, self.sums / self.pulls.clamp(min=1), torch.inf)


@dataclass(frozen=True)
class CountingAgent:
    """An agent that goes by how often each arm was pulled and what it brought: it says in `act` how."""

    card: ClassVar[AgentCard]

    environment: Environment

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)

    @classmethod
    def example(cls) -> Self:
        """For the default bandit."""
        return cls(GaussianBandit())

    def begin(self, batch: int, *, generator: torch.Generator) -> Counts:
        """No pulls."""
        nothing = torch.zeros(batch, self.environment.num_actions, device=generator.device, dtype=torch.float64)
        return Counts(nothing, nothing, generator)

    def observe(
        self,
        state: Counts,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> Counts:
        """One pull more in every world."""
        pulled = one_hot(action, state.pulls.shape[1]).to(state.pulls.dtype)
        brought = pulled * reward.to(state.sums.dtype).unsqueeze(1)
        return state._replace(pulls=state.pulls + pulled, sums=state.sums + brought)


def surely(action: Int[Tensor, " batch"], num_actions: int) -> Categorical:
    """The distribution that takes this action and no other."""
    return Categorical(probs=one_hot(action, num_actions).to(torch.float64), validate_args=False)


def greedy(scores: Float[Tensor, "batch actions"]) -> Categorical:
    """The highest score, the first of equals."""
    return surely(scores.argmax(1), scores.shape[1])
