"""Small Markov decision processes drawn at random (Lin et al., 2024, arXiv:2310.08566; Osband et al., 2013).

    next state ~ P(s, a) ~ Dirichlet(1, .., 1);    reward ~ N(r(s, a), noise^2), r(s, a) ~ U(0, 1);    s_1 = 0

The values follow backwards from the last step: Q_h(s, a) = r(s, a) + sum_s' P(s, a, s') max_a' Q_{h+1}(s', a').
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from contexture.errors import InputError
from contexture.protocols import EnvironmentCard, Outcome


class Process(NamedTuple):
    """rewards [batch, states, actions], transitions [batch, states, actions, states], values of actions by the steps
    gone [batch, horizon, states, actions]; state and steps: int64 [batch]."""

    rewards: Tensor
    transitions: Tensor
    values: Tensor
    state: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class TabularMDP:
    """A few states and actions, transitions and rewards drawn anew for every world, episodes of a fixed length."""

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="tabular-mdp",
        summary="A few states and actions with transitions and rewards drawn at random, in episodes of fixed length.",
        paper="Lin et al., Transformers as Decision Makers, arXiv:2310.08566",
        year=2023,
        family="states",
    )

    num_states: int = 5
    num_actions: int = 3
    horizon: int = 5
    noise: float = 0.1

    def __post_init__(self) -> None:
        if min(self.num_states, self.num_actions, self.horizon) < 1 or self.num_actions < 2 or self.noise < 0:
            raise InputError(
                f"a decision process needs states, two actions, a horizon and noise >= 0, not {self.num_states}, "
                f"{self.num_actions}, {self.horizon} and {self.noise}"
            )

    @property
    def num_features(self) -> int:
        """The state is shown as a one among zeros."""
        return self.num_states

    def begin(self, batch: int, *, generator: torch.Generator) -> Process:
        """Draw a process for each world, and solve it."""
        shape = (batch, self.num_states, self.num_actions)
        rewards = torch.rand(shape, generator=generator)
        # Normalised exponentials are a draw from the flat Dirichlet distribution.
        drawn = -torch.log1p(-torch.rand(*shape, self.num_states, generator=generator))
        transitions = drawn / drawn.sum(-1, keepdim=True)
        zeros = torch.zeros(batch, dtype=torch.int64)
        return Process(rewards, transitions, self._solve(rewards, transitions), zeros, zeros)

    def _solve(self, rewards: Tensor, transitions: Tensor) -> Tensor:
        later, solved = rewards.new_zeros(len(rewards), self.num_states), []
        for _ in range(self.horizon):
            solved.append(rewards + torch.einsum("bsat,bt->bsa", transitions, later))
            later = solved[-1].amax(-1)
        return torch.stack(solved[::-1], 1)

    def restart(self, world: Process, chosen: Shaped[Tensor, " batch"]) -> Process:
        """Back to the first state."""
        return world._replace(state=world.state.masked_fill(chosen, 0), steps=world.steps.masked_fill(chosen, 0))

    def observation(self, world: Process) -> Float[Tensor, "batch states"]:
        """The state, as a one among zeros."""
        return one_hot(world.state, self.num_states).to(world.rewards.dtype)

    def states(self, observation: Float[Tensor, "*batch states"]) -> Int[Tensor, "*batch"]:
        """The index of the state that an observation shows."""
        return observation.argmax(-1)

    def step(
        self, world: Process, action: Int[Tensor, " batch"], *, generator: torch.Generator
    ) -> tuple[Outcome, Process]:
        """Draw the reward and the next state."""
        rows = torch.arange(len(action))
        mean = world.rewards[rows, world.state, action]
        reward = mean + self.noise * torch.randn(mean.shape, generator=generator)
        state = torch.multinomial(world.transitions[rows, world.state, action], 1, generator=generator).squeeze(1)
        steps = world.steps + 1
        return Outcome(reward, steps >= self.horizon), world._replace(state=state, steps=steps)

    def best_return(self, world: Process) -> Float[Tensor, " batch"]:
        """The expected reward of the rest of the episode under the best policy."""
        rows, over = torch.arange(len(world.state)), world.steps >= self.horizon
        best = world.values[rows, world.steps.clamp(max=self.horizon - 1), world.state].amax(-1)
        return best.masked_fill(over, 0.0)

    def regret(self, world: Process, action: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The best action's value less the action's."""
        rows = torch.arange(len(action))
        values = world.values[rows, world.steps, world.state]
        return values.amax(1) - values[rows, action]

    def latents(self, world: Process) -> Mapping[str, Tensor]:
        """rewards and transitions."""
        return {"rewards": world.rewards, "transitions": world.transitions}
