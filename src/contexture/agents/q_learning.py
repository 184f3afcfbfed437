"""Tabular Q-learning (Watkins & Dayan, Machine Learning 8, 1992), whose learning histories others can be trained on.

    Q(s, a) <- Q(s, a) + rate (r + discount max_a' Q(s', a') - Q(s, a)),    no bootstrap where the episode ended

It takes the action of the highest value, or any one with probability `exploration`. Values start at `optimism`.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import require_family
from contexture.environments.darkroom import Darkroom
from contexture.errors import InputError
from contexture.protocols import AgentCard, Environment


class Values(NamedTuple):
    """values: [batch, states, actions]. A step is learned from when its next state is seen: state and action, int64
    [batch], reward, done, and whether there is such a step, `pending`, bool [batch]."""

    values: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    done: Tensor
    pending: Tensor


@dataclass(frozen=True)
class QLearning:
    """Learns the value of every action in every state from single steps."""

    card: ClassVar[AgentCard] = AgentCard(
        name="q-learning",
        summary="Learns the value of every action in every state from single steps, and acts on it.",
        paper="Watkins & Dayan, Q-learning, Machine Learning 8",
        year=1992,
        kind="classical",
        families=frozenset({"states"}),
    )

    environment: Environment
    rate: float = field(default=0.5, kw_only=True)
    discount: float = field(default=0.9, kw_only=True)
    exploration: float = field(default=0.1, kw_only=True)
    optimism: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)
        if not (0 < self.rate <= 1 and 0 <= self.discount <= 1 and 0 <= self.exploration <= 1):
            raise InputError(
                f"Q-learning needs a rate in (0, 1], discount and exploration in [0, 1], not {self.rate}, "
                f"{self.discount} and {self.exploration}"
            )

    @classmethod
    def example(cls) -> "QLearning":
        """For the default darkroom."""
        return cls(Darkroom())

    def begin(self, batch: int, *, generator: torch.Generator) -> Values:
        """Every value as hoped for."""
        shape = (batch, self.environment.num_states, self.environment.num_actions)  # type: ignore[attr-defined]
        zeros, false = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.bool)
        values = torch.full(shape, self.optimism, dtype=torch.float64)
        return Values(values, zeros, zeros, torch.zeros(batch, dtype=torch.float64), false, false)

    def act(self, state: Values, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Values]:
        """Learn from the step that led here, then the highest value, ties shared, with some exploration."""
        seen = self.environment.states(observation)  # type: ignore[attr-defined]
        rows = torch.arange(len(seen))
        later = state.values[rows, seen].amax(1).masked_fill(state.done, 0.0)
        old = state.values[rows, state.state, state.action]
        change = self.rate * (state.reward + self.discount * later - old) * state.pending
        values = state.values.clone()
        values[rows, state.state, state.action] = old + change
        here = values[rows, seen]
        best = (here == here.amax(1, keepdim=True)).to(here.dtype)
        probabilities = (1 - self.exploration) * best / best.sum(1, keepdim=True)
        probabilities = probabilities + self.exploration / self.environment.num_actions
        now = state._replace(values=values, state=seen, pending=torch.zeros_like(state.pending))
        return Categorical(probs=probabilities, validate_args=False), now

    def observe(
        self,
        state: Values,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> Values:
        """Keep the step until it is seen where it led."""
        return state._replace(
            action=action, reward=reward.to(torch.float64), done=done, pending=torch.ones_like(state.pending)
        )
