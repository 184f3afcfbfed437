"""UCB-VI, value iteration with a bonus for what was seldom tried (Azar et al., 2017, arXiv:1703.05449).

    P(s' | s, a) = n(s, a, s') / sum_t n(s, a, t),    r(s, a) = mean reward,    bonus(s, a) = width sqrt(1 / n(s, a))
    Q_h(s, a) = min(horizon - h, r + P max_a' Q_{h+1} + bonus);    an untried action has the highest value there is

The model is solved anew at the start of every episode. Rewards are taken to lie in [0, 1].
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Categorical
from torch.nn.functional import one_hot

from contexture.agents.base import greedy, require_family
from contexture.environments.tabular_mdp import TabularMDP
from contexture.errors import InputError
from contexture.protocols import AgentCard, Environment, Trajectories


class Model(NamedTuple):
    """What was counted, and the step that is not counted yet, for want of its next state.

    visits: n(s, a, s'), [batch, states, actions, states]; sums of rewards and tries n(s, a), [batch, states, actions];
    values: Q of this episode, [batch, horizon, states, actions]; state, action, and steps of this episode: int64
    [batch]; done, pending: bool [batch].
    """

    visits: Tensor
    sums: Tensor
    tries: Tensor
    values: Tensor
    state: Tensor
    action: Tensor
    steps: Tensor
    done: Tensor
    pending: Tensor


@dataclass(frozen=True)
class UCBVI:
    """Plans in the model that the counts give, with hope where they are few."""

    card: ClassVar[AgentCard] = AgentCard(
        name="ucb-vi",
        summary="Plans in a model made of counts, with a bonus for what was seldom tried.",
        paper="Azar et al., Minimax Regret Bounds for Reinforcement Learning, arXiv:1703.05449",
        year=2017,
        kind="classical",
        families=frozenset({"states"}),
    )

    environment: Environment
    width: float = field(default=0.3, kw_only=True)

    def __post_init__(self) -> None:
        require_family(self.card, self.environment)
        if self.width < 0:
            raise InputError(f"width is zero or more, not {self.width}")

    @classmethod
    def example(cls) -> "UCBVI":
        """For the default decision process."""
        return cls(TabularMDP())

    def begin(self, batch: int, *, generator: torch.Generator) -> Model:
        """Nothing tried, everything hoped for."""
        states, actions = self.environment.num_states, self.environment.num_actions  # type: ignore[attr-defined]
        tries = torch.zeros(batch, states, actions, dtype=torch.float64)
        visits = torch.zeros(batch, states, actions, states, dtype=torch.float64)
        zeros, false = torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, dtype=torch.bool)
        return Model(visits, tries, tries, self._plan(visits, tries, tries), zeros, zeros, zeros, false, false)

    def _plan(self, visits: Tensor, sums: Tensor, tries: Tensor) -> Tensor:
        often, moved = tries.clamp(min=1), visits.sum(-1).clamp(min=1)
        later, solved = sums.new_zeros(len(sums), sums.shape[1]), []
        for left in range(1, self.environment.horizon + 1):
            hoped = sums / often + torch.einsum("bsat,bt->bsa", visits, later) / moved + self.width * often.rsqrt()
            solved.append(torch.where(tries > 0, hoped.clamp(max=left), float(left)))
            later = solved[-1].amax(-1)
        return torch.stack(solved[::-1], 1)

    def act(self, state: Model, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Model]:
        """Count the step that led here, plan if an episode begins, then the highest value."""
        seen = self.environment.states(observation)  # type: ignore[attr-defined]
        rows = torch.arange(len(seen))
        # The state after an episode's last step is the start of the next one, which the action did not bring about.
        known = (state.pending & ~state.done).to(state.visits.dtype)
        visits = state.visits.index_put((rows, state.state, state.action, seen), known, accumulate=True)
        steps = torch.where(state.pending & state.done, 0, state.steps)
        values = state.values
        starting = (state.pending & state.done).nonzero().squeeze(1)
        if len(starting):
            planned = self._plan(visits[starting], state.sums[starting], state.tries[starting])
            values = values.index_copy(0, starting, planned)
        now = state._replace(
            visits=visits, values=values, state=seen, steps=steps, pending=torch.zeros_like(state.pending)
        )
        return greedy(values[rows, steps.clamp(max=self.environment.horizon - 1), seen]), now

    def observe(
        self,
        state: Model,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> Model:
        """Count the action and its reward; where it led is counted when it is seen."""
        where = (torch.arange(len(action)), state.state, action)
        ones = torch.ones(len(action), dtype=state.tries.dtype)
        return state._replace(
            sums=state.sums.index_put(where, reward.to(state.sums.dtype), accumulate=True),
            tries=state.tries.index_put(where, ones, accumulate=True),
            action=action,
            steps=state.steps + 1,
            done=done,
            pending=torch.ones_like(state.pending),
        )


def planned_values(agent: UCBVI, played: Trajectories) -> Float[Tensor, "worlds time horizon states actions"]:
    """Q of the episode that every step of a history is in, for all steps at once: counts are running sums.

    Step by step it is what the agent's states hold as `values`.
    """
    environment: Any = agent.environment
    s, a, horizon = environment.num_states, environment.num_actions, environment.horizon
    state = environment.states(played.observations)
    pair = one_hot(state * a + played.actions, s * a).double()
    after = torch.cat((one_hot(state[:, 1:], s), torch.zeros(played.batch, 1, s)), 1).double()
    last = torch.cat((played.starts[:, 1:], torch.ones(played.batch, 1, dtype=torch.bool)), 1)
    after = after * (~last).unsqueeze(-1)

    def known(each: Tensor) -> Tensor:
        """Sums over earlier episodes."""
        before = each.cumsum(1) - each
        begun = torch.arange(played.time) // horizon * horizon
        return before[:, begun]

    tries, sums = known(pair), known(pair * played.rewards.double().unsqueeze(-1))
    visits = known(torch.einsum("btp,bts->btps", pair, after))
    model = visits / visits.sum(-1, keepdim=True).clamp(min=1)
    later, found = torch.zeros(*state.shape, s, dtype=torch.float64), []
    for left in range(1, horizon + 1):
        often = tries.clamp(min=1)
        hoped = sums / often + (model @ later.unsqueeze(-1)).squeeze(-1) + agent.width * often.rsqrt()
        found.append(torch.where(tries > 0, hoped.clamp(max=left), float(left)))
        later = torch.unflatten(found[-1], -1, (s, a)).amax(-1)
    return torch.unflatten(torch.stack(found[::-1], 2), -1, (s, a))
