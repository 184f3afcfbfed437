"""What agents share: the check that they fit an environment, what they know of arms, and sure choices."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import one_hot

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


def no_counts(batch: int, num_arms: int, generator: torch.Generator) -> Counts:
    """Before the first pull."""
    nothing = torch.zeros(batch, num_arms, device=generator.device, dtype=torch.float64)
    return Counts(nothing, nothing, generator)


def count(state: Counts, action: Tensor, reward: Tensor) -> Counts:
    """One pull more in every world."""
    pulled = one_hot(action, state.pulls.shape[1]).to(state.pulls.dtype)
    return state._replace(
        pulls=state.pulls + pulled, sums=state.sums + pulled * reward.to(state.sums.dtype).unsqueeze(1)
    )


def surely(action: Int[Tensor, " batch"], num_actions: int) -> Categorical:
    """The distribution that takes this action and no other."""
    return Categorical(probs=one_hot(action, num_actions).to(torch.float64), validate_args=False)


def greedy(scores: Float[Tensor, "batch actions"]) -> Categorical:
    """The highest score, the first of equals."""
    return surely(scores.argmax(1), scores.shape[1])


def rows(value: Any, chosen: Tensor) -> Any:
    """The chosen rows of every tensor in a state of NamedTuples, in the order asked."""
    if isinstance(value, Tensor):
        return value[chosen]
    if isinstance(value, tuple):
        return type(value)(*(rows(part, chosen) for part in value))
    return value
