"""Learning histories: what a source agent saw and did while it learned, many times over in the same worlds.

    worlds x repeats histories, each of `episodes` episodes and ordered world by world;  a share `corrupted` of every
    world's histories comes from an agent that acts at random and learns nothing

Sequence models are trained on them (Laskin et al., 2022, arXiv:2210.14215). The same settings give the same histories.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from contexture.agents.random_agent import RandomAgent
from contexture.agents.roll_out import best_actions, choose, roll_out
from contexture.discovery import find
from contexture.environments.choice import build_environment
from contexture.errors import InputError
from contexture.protocols import Agent, Environment, Trajectories
from contexture.randomness import generator

PULLS = 10
"""How many pulls of a bandit, whose episodes are single pulls, are taken together as one episode."""


@dataclass(frozen=True, kw_only=True)
class HistorySet:
    """What is collected: a source agent and its environment by name, and how often it learns there from nothing.

    draw: another number gives other worlds and other histories.

    >>> few = HistorySet(settings={"size": 3, "horizon": 4}, episodes=5, worlds=2, repeats=3)
    >>> tuple(few.collect().rewards.shape)
    (6, 20)
    """

    environment: str = "darkroom"
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = "q-learning"
    source_settings: Mapping[str, Any] = field(default_factory=dict)
    episodes: int = 40
    worlds: int = 32
    repeats: int = 16
    corrupted: float = 0.0
    draw: int = 0

    def __post_init__(self) -> None:
        if min(self.episodes, self.worlds, self.repeats) < 1:
            raise InputError(
                f"histories need at least one episode, world and repeat, not {self.episodes}, {self.worlds} and "
                f"{self.repeats}"
            )
        if not 0 <= self.corrupted <= 1:
            raise InputError(f"the corrupted share of histories lies between 0 and 1, not at {self.corrupted}")

    @cached_property
    def acted_in(self) -> Environment:
        """The environment itself."""
        return build_environment(self.environment, self.settings)

    @property
    def stretch(self) -> int:
        """The steps of one episode, or the pulls of a bandit that are taken together as one."""
        horizon = self.acted_in.horizon
        return PULLS if horizon == 1 else horizon

    @property
    def agent(self) -> Agent:
        """The source; InputError for one that there is not, or that cannot act there."""
        cls = find(self.source, "agents")
        try:
            built: Agent = cls(self.acted_in, **self.source_settings)
        except TypeError as error:
            raise InputError(
                f"the agent {self.source!r} cannot be built from {dict(self.source_settings)}: {error}"
            ) from error
        return built

    def collect(self, *, best: bool = False) -> Trajectories:
        """Let the source learn, and the random agent act, in every world; best: with best actions as targets.

        The last few sets are kept, as models that differ in what they are shown of a set are trained one after another.
        """
        return _collected(json.dumps(asdict(self), sort_keys=True), best)

    def _collect(self, *, best: bool) -> Trajectories:
        spoiled = round(self.corrupted * self.repeats)
        parts = [
            self._play(agent, repeats, best)
            for agent, repeats in ((RandomAgent(self.acted_in), spoiled), (self.agent, self.repeats - spoiled))
            if repeats
        ]
        return parts[0] if len(parts) == 1 else self._by_world(parts)

    def _play(self, agent: Agent, repeats: int, best: bool) -> Trajectories:
        drawing = generator(self.draw, "histories", "targets")

        def label(world: Any) -> Tensor:
            return choose(best_actions(self.acted_in, world).to(torch.float64), generator=drawing)

        return roll_out(
            agent,
            self.acted_in,
            worlds=self.worlds,
            repeats=repeats,
            steps=self.episodes * self.stretch,
            seed=self.draw,
            label=label if best else None,
        )

    def _by_world(self, parts: list[Trajectories]) -> Trajectories:
        """Several histories of every world as one batch, each world's beside each other."""

        def joined(name: str) -> Tensor:
            return self._beside([getattr(part, name) for part in parts])

        names = ("observations", "actions", "rewards", "starts", "regret")
        return Trajectories(
            num_actions=self.acted_in.num_actions,
            targets=None if parts[0].targets is None else joined("targets"),
            latents={name: self._beside([part.latents[name] for part in parts]) for name in parts[0].latents},
            **{name: joined(name) for name in names},
        )

    def _beside(self, rows: list[Tensor]) -> Tensor:
        return torch.cat([row.view(self.worlds, -1, *row.shape[1:]) for row in rows], 1).flatten(0, 1)


@lru_cache(maxsize=6)
def _collected(settings: str, best: bool) -> Trajectories:
    """The histories of a set whose settings are written as JSON."""
    return HistorySet(**json.loads(settings))._collect(best=best)
