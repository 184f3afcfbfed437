"""The laws of agents.

| law | what it holds |
|---|---|
| distribution | every action has a probability, they add up to one, also before anything was seen |
| history | a state carried along acts as one that was shown the whole history again, bit by bit |
| order | what came later changes nothing in what was done before |
| values | acting and observing leave the state that they are given as it was |
| worlds | what happens in one world changes nothing in the others |
| own generator | nothing reads or moves a global generator |
| competence | over a few hundred steps it gives away less than an agent that acts at random |

An agent whose card waives competence says why. Histories are those of random actions in the agent's environment.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from contexture.agents.random_agent import RandomAgent
from contexture.agents.roll_out import roll_out
from contexture.discovery import build
from contexture.protocols import Agent, Environment, Trajectories
from contexture.randomness import generator
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws

WORLDS = 6
STEPS = 30
JUDGED_WORLDS = 128
JUDGED_STEPS = 300


@dataclass(frozen=True)
class AgentCase:
    """An agent with a history of its environment."""

    agent: Agent
    environment: Environment

    @cached_property
    def history(self) -> Trajectories:
        """What a random agent saw."""
        return roll_out(RandomAgent(self.environment), self.environment, worlds=WORLDS, steps=STEPS, seed=7)

    def shown(self, history: Trajectories) -> list[Tensor]:
        """The agent's probabilities at every step of a history, whatever it would have done itself."""
        state = self.agent.begin(history.batch, generator=generator("law", "agent"))
        said = []
        for step in range(history.time):
            distribution, state = self.agent.act(state, history.observations[:, step])
            said.append(distribution.probs)
            if step + 1 < history.time:
                done = history.starts[:, step + 1]
                state = self.agent.observe(state, history.actions[:, step], history.rewards[:, step], done)
        return said


def check_agent(agent: type[Any] | Agent, *, laws: tuple[str, ...] = ()) -> None:
    """Hold an agent, or the example of a class, to every law or the named ones; LawError at the first broken."""
    found: Any = build(agent) if isinstance(agent, type) else agent
    case = AgentCase(found, found.environment)
    run_laws(LAWS, case, waivers=found.card.waivers, only=laws)


def law_distribution(case: AgentCase) -> None:
    """Probabilities."""
    for step, said in enumerate(case.shown(case.history)):
        if said.shape != (WORLDS, case.environment.num_actions):
            raise LawError("distribution", f"probabilities are of shape {tuple(said.shape)}", position=(step,))
        if bool((said < 0).any()) or not torch.allclose(said.sum(1), said.new_ones(WORLDS), atol=1e-5):
            raise LawError("distribution", "probabilities are negative or do not add up to one", position=(step,))


def law_history(case: AgentCase) -> None:
    """Shown again = carried."""
    first, again = case.shown(case.history), case.shown(case.history)
    for step, (a, b) in enumerate(zip(first, again, strict=True)):
        if not torch.equal(a, b):
            raise LawError("history", "the same history is acted on differently", position=(step,))


def law_order(case: AgentCase) -> None:
    """Later steps change nothing before them."""
    history = case.history
    for cut in (1, STEPS // 2, STEPS - 1):
        later = torch.arange(STEPS) >= cut
        changed = Trajectories(
            observations=torch.where(later[:, None], history.observations.flip(0), history.observations),
            actions=torch.where(later, history.actions.flip(0), history.actions),
            rewards=torch.where(later, 1 - history.rewards, history.rewards),
            starts=history.starts,
            num_actions=history.num_actions,
        )
        for step, (a, b) in enumerate(zip(case.shown(history)[:cut], case.shown(changed)[:cut], strict=True)):
            if not torch.equal(a, b):
                raise LawError("order", f"what came from step {cut} on changed what was done", position=(step,))


def _tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, tuple | list):
        return [tensor for part in state for tensor in _tensors(part)]
    return []


def law_values(case: AgentCase) -> None:
    """States are values."""
    agent, history = case.agent, case.history
    state = agent.begin(WORLDS, generator=generator("law", "agent"))
    for step in range(STEPS - 1):
        kept = [tensor.clone() for tensor in _tensors(state)]
        _, acted = agent.act(state, history.observations[:, step])
        held = [tensor.clone() for tensor in _tensors(acted)]
        after = agent.observe(acted, history.actions[:, step], history.rewards[:, step], history.starts[:, step + 1])
        for before, tensors in ((kept, _tensors(state)), (held, _tensors(acted))):
            if not all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True)):
                raise LawError("values", "acting or observing changed the state that was given", position=(step,))
        state = after


def law_worlds(case: AgentCase) -> None:
    """Worlds do not see each other."""
    history = case.history
    first = torch.arange(WORLDS)[:, None] == 0
    changed = Trajectories(
        observations=torch.where(first[..., None], history.observations.roll(1, 0), history.observations),
        actions=torch.where(first, (history.actions + 1) % history.num_actions, history.actions),
        rewards=torch.where(first, 1 - history.rewards, history.rewards),
        starts=history.starts,
        num_actions=history.num_actions,
    )
    for step, (a, b) in enumerate(zip(case.shown(history), case.shown(changed), strict=True)):
        if not torch.equal(a[1:], b[1:]):
            raise LawError("worlds", "what happened in world 0 changed another's actions", position=(step,))


def law_own_generator(case: AgentCase) -> None:
    """No global generator."""
    torch.manual_seed(0)
    random.seed(0)
    before = (torch.get_rng_state(), random.getstate())
    first = case.shown(case.history)
    if not torch.equal(torch.get_rng_state(), before[0]) or random.getstate() != before[1]:
        raise LawError("own generator", "a global generator was moved")
    torch.manual_seed(1)
    if not all(torch.equal(a, b) for a, b in zip(first, case.shown(case.history), strict=True)):
        raise LawError("own generator", "a global generator was read")


def law_competence(case: AgentCase) -> None:
    """Better than chance, by five standard errors of the paired difference."""
    agents = (case.agent, RandomAgent(case.environment))
    played = [roll_out(a, case.environment, worlds=JUDGED_WORLDS, steps=JUDGED_STEPS, seed=11).regret for a in agents]
    own, chance = played
    assert own is not None
    assert chance is not None
    saved = (chance - own).sum(1)
    if not float(saved.mean()) > 5 * float(saved.std()) / len(saved) ** 0.5:
        raise LawError("competence", f"it saves {float(saved.mean()):.3g} of what an agent at random gives away")


LAWS: Mapping[str, Callable[[AgentCase], None]] = {
    "distribution": law_distribution,
    "history": law_history,
    "order": law_order,
    "values": law_values,
    "worlds": law_worlds,
    "own generator": law_own_generator,
    "competence": law_competence,
}
