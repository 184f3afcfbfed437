"""Gymnasium's face: environments of this library as `gymnasium.Env`, and agents of this library in anybody's.

    env = make("darkroom", size=5)                        an environment here, for whatever trains there
    agent = ContextAgent(env, "thompson")                 an agent here, in a bandit or small discrete environment there
    agent.run(steps=200, seed=0)

An environment there is one world here. Gymnasium is imported when it is first needed: pip install
'contexture[gymnasium]'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from contexture.agents.in_context import InContextAgent
from contexture.agents.roll_out import choose
from contexture.agents.saved import load_shipped_decisions
from contexture.discovery import find
from contexture.environments.choice import build_environment
from contexture.errors import InputError
from contexture.protocols import Agent, Environment, EnvironmentCard, Outcome
from contexture.randomness import generator

if TYPE_CHECKING:
    import gymnasium

ARMS = "gaussian-bandit"


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise InputError("this needs gymnasium: pip install 'contexture[gymnasium]'") from error
    return gymnasium


def make(environment: str | Environment, *, steps: int | None = None, **settings: Any) -> "gymnasium.Env[Any, int]":
    """An environment of this library as a `gymnasium.Env` whose observations are vectors, or nothing (a bandit).

    environment: a registered name, built with `settings`, or an environment itself. steps: how long an episode is
    there; within it, episodes here follow each other in one world, so that what was found in one can be used in the
    next. By default one episode, and 200 pulls of a bandit. `reset` draws another world, or with
    `options={"world": "same"}` begins again in the last one; `info["regret"]` is what an action gave away.
    """
    _gymnasium()
    built = build_environment(environment, settings) if isinstance(environment, str) else environment
    if steps is not None and steps < 1:
        raise InputError(f"an episode needs at least one step, not {steps}")
    made: gymnasium.Env[Any, int] = _env_class()(built, steps or (200 if built.horizon == 1 else None))
    return made


@cache
def _env_class() -> type[Any]:
    """The class, made when gymnasium is there to be derived from."""
    gymnasium = _gymnasium()

    class ContextureEnv(gymnasium.Env):  # type: ignore[misc]
        """One world of an environment; see `make`."""

        metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

        def __init__(self, environment: Environment, steps: int | None) -> None:
            self.environment, self.steps = environment, steps
            self.action_space = gymnasium.spaces.Discrete(environment.num_actions)
            size = environment.num_features
            self.observation_space = (
                gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32) if size else gymnasium.spaces.Discrete(1)
            )
            self._world: Any = None
            self._gone = 0

        def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
            """Begin in another world, or in the same one."""
            super().reset(seed=seed)
            self._source = torch.Generator().manual_seed(int(self.np_random.integers(2**62)))
            if (options or {}).get("world") == "same" and self._world is not None:
                self._world = self.environment.restart(self._world, torch.tensor([True]))
            else:
                self._world = self.environment.begin(1, generator=self._source)
            self._gone = 0
            return self._seen(), {}

        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            """Act once."""
            if self._world is None:
                raise InputError("an environment is reset before its first step")
            chosen = torch.tensor([int(action)])
            regret = float(self.environment.regret(self._world, chosen))
            outcome, self._world = self.environment.step(self._world, chosen, generator=self._source)
            self._gone += 1
            done = bool(outcome.done)
            if done and self.steps is not None:
                self._world = self.environment.restart(self._world, outcome.done)
            terminated = done and self.steps is None
            truncated = self.steps is not None and self._gone >= self.steps
            info = {"regret": regret, "done": done}
            return self._seen(), float(outcome.reward), terminated, truncated, info

        def _seen(self) -> Any:
            if not self.environment.num_features:
                return 0
            return self.environment.observation(self._world)[0].to(torch.float32).numpy()

    return ContextureEnv


@dataclass(frozen=True, kw_only=True)
class Described:
    """What agents have to know of an environment that is somebody else's: arms alone, or numbered states."""

    card: EnvironmentCard
    num_actions: int
    num_features: int
    horizon: int
    num_states: int = 1

    def states(self, observation: Tensor) -> Tensor:
        """The number of the state that an observation shows as a one among zeros."""
        return observation.argmax(-1)

    def begin(self, batch: int, *, generator: torch.Generator) -> Any:
        """Refused, like everything that would take its place."""
        raise InputError("this environment is acted in through gymnasium")

    def restart(self, world: Any, chosen: Tensor) -> Any:
        """Refused."""
        return self.begin(0, generator=generator())

    def observation(self, world: Any) -> Tensor:
        """Refused."""
        raise InputError("this environment is acted in through gymnasium")

    def step(self, world: Any, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Any]:
        """Refused."""
        raise InputError("this environment is acted in through gymnasium")

    def regret(self, world: Any, action: Tensor) -> Tensor:
        """Refused."""
        raise InputError("this environment is acted in through gymnasium")

    def latents(self, world: Any) -> Mapping[str, Tensor]:
        """Refused."""
        raise InputError("this environment is acted in through gymnasium")


def describe(env: "gymnasium.Env[Any, Any]") -> Described:
    """What there is to do and to see in a gymnasium environment; InputError where no agent here could act.

    Actions are `Discrete`. An observation that never changes (a space of one element) makes a bandit, a `Discrete`
    one numbered states.
    """
    spaces = _gymnasium().spaces
    actions, seen = env.action_space, env.observation_space
    if not isinstance(actions, spaces.Discrete) or not isinstance(seen, spaces.Discrete):
        raise InputError(
            f"agents act with Discrete actions on Discrete observations, and this environment has {actions} and {seen}"
        )
    limit = getattr(env.spec, "max_episode_steps", None) or 100
    family: Literal["arms", "states"] = "arms" if seen.n == 1 else "states"
    return Described(
        card=EnvironmentCard(name="gymnasium", summary="Somebody else's.", family=family),
        num_actions=int(actions.n),
        num_features=0 if family == "arms" else int(seen.n),
        horizon=1 if family == "arms" else int(limit),
        num_states=int(seen.n),
    )


class ContextAgent:
    """An agent of this library in a bandit or small discrete environment of gymnasium's.

    agent: a registered name ("thompson", "ucb", "q-learning", ..), "transformer" (the trained one that ships for five
    arms), or the folder of a trained agent; settings: keyword arguments of a registered agent. rewards: the lowest and
    the highest mean reward to expect, mapped to 0 and 1, as the agents here are set up for.

    What it learns it keeps over episodes until `begin` is called.
    """

    def __init__(
        self,
        env: "gymnasium.Env[Any, Any]",
        agent: str = "transformer",
        *,
        settings: Mapping[str, Any] = MappingProxyType({}),
        rewards: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        if not rewards[0] < rewards[1]:
            raise InputError(f"rewards go from a lower to a higher number, not from {rewards[0]} to {rewards[1]}")
        self.env, self.rewards = env, rewards
        self.described = describe(env)
        spaces: tuple[Any, Any] = (env.action_space, env.observation_space)
        self._offsets = (int(spaces[0].start), int(spaces[1].start))
        self.agent = _agent(agent, self.described, settings)
        self.begin(seed=0)

    def begin(self, *, seed: int) -> None:
        """Forget everything."""
        self._chance = generator(seed, "gymnasium", "actions")
        self._state = self.agent.begin(1, generator=generator(seed, "gymnasium", "agent"))
        self._last: Tensor | None = None

    def probabilities(self, observation: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """How likely it takes each action now."""
        said, self._state = self.agent.act(self._state, self._vector(observation))
        self._said = said.probs.to(torch.float64)
        return self._said[0].numpy()

    def act(self, observation: Any) -> int:
        """The next action; `observe` has to say what came of it."""
        self.probabilities(observation)
        self._last = choose(self._said, generator=self._chance)
        return int(self._last) + self._offsets[0]

    def observe(self, reward: float, *, done: bool) -> None:
        """Take in what the last action brought, and whether the episode ended with it."""
        if self._last is None:
            raise InputError("there is nothing to observe before an action: call act first")
        low, high = self.rewards
        scaled = torch.tensor([(float(reward) - low) / (high - low)], dtype=torch.float64)
        ended = done or self.described.horizon == 1
        self._state = self.agent.observe(self._state, self._last, scaled, torch.tensor([ended]))
        self._last = None

    def run(self, *, steps: int, seed: int = 0) -> dict[str, list[float]]:
        """Act for so many steps, over as many episodes as they make; actions and rewards in order."""
        actions, earned = list[float](), list[float]()
        observation, _ = self.env.reset(seed=seed)
        for _ in range(steps):
            action = self.act(observation)
            observation, reward, terminated, truncated, _ = self.env.step(action)
            self.observe(float(reward), done=terminated or truncated)
            actions.append(action)
            earned.append(float(reward))
            if terminated or truncated:
                observation, _ = self.env.reset(options={"world": "same"})
        return {"actions": actions, "rewards": earned}

    def _vector(self, observation: Any) -> Tensor:
        if self.described.num_features == 0:
            return torch.zeros(1, 0)
        vector = torch.zeros(1, self.described.num_features)
        vector[0, int(observation) - self._offsets[1]] = 1.0
        return vector


def _agent(name: str, described: Described, settings: Mapping[str, Any]) -> Agent:
    if name == "transformer":
        return InContextAgent.of(load_shipped_decisions(ARMS), described)
    from pathlib import Path

    if Path(name).is_dir():
        return InContextAgent.load(name, described)
    try:
        made: Agent = find(name, "agents")(described, **settings)
    except TypeError as error:
        raise InputError(f"the agent {name!r} cannot be built from {dict(settings)}: {error}") from error
    return made
