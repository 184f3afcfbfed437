"""Agents in darkrooms whose goal is one that they were not trained on, episode by episode.

returns: [worlds, episodes]; most: what who knows the goal earns in an episode, [worlds].
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from contexture.agents.history_filter import returns_of
from contexture.agents.in_context import InContextAgent
from contexture.agents.roll_out import roll_out
from contexture.environments.darkroom import Darkroom, Room
from contexture.models.decisions import DecisionState
from contexture.models.planning import Foresight, PlanningModel
from contexture.protocols import Agent


class OneEpisode(InContextAgent):
    """A trained model with an empty memory in every episode."""

    def observe(self, state: DecisionState, action: Tensor, reward: Tensor, done: Tensor) -> DecisionState:
        """The episodes of all rooms end at the same step."""
        if bool(done.all()):
            return self.begin(len(done), generator=torch.Generator())
        return super().observe(state, action, reward, done)


class Astray(PlanningModel):
    """The same model, which takes what one action would bring for what another would."""

    def decide(self, observation: Tensor, state: DecisionState) -> tuple[Foresight, DecisionState]:
        """Outcomes of the next action in order."""
        said, state = super().decide(observation, state)
        return said._replace(outcomes=said.outcomes.roll(1, dims=-2)), state


def in_rooms(
    agent: Agent, room: Darkroom, *, worlds: int, episodes: int, seed: int, every: int = 1
) -> Mapping[str, Tensor]:
    """The returns of an agent's episodes, or of one in so many, and the most that each room allows.

    >>> from contexture.agents.random_agent import RandomAgent
    >>> room = Darkroom(size=3, horizon=4)
    >>> found = in_rooms(RandomAgent(room), room, worlds=6, episodes=2, seed=0, every=5)
    >>> tuple(found["returns"].shape), bool((found["returns"] <= found["most"][:, None]).all())
    ((6, 2), True)
    """
    played = roll_out(agent, room, worlds=worlds, steps=every * episodes * room.horizon, seed=seed)
    goal = played.latents["goal"]
    start = Room(goal, torch.full_like(goal, room.size // 2), torch.zeros(worlds, dtype=torch.int64))
    returns = returns_of(played.rewards, room.horizon)[:, ::every]
    return {"returns": returns.to(torch.float64), "most": room.best_return(start).to(torch.float64)}
