"""Agents in the same worlds: what their actions gave away, or what their episodes brought, as steps go by.

    cumulative regret after n steps    sum over the first n steps of what the action gave away in expectation
    return of episode n                the sum of its rewards

Agents meet the same worlds with the same noise, so that they are compared world by world. Intervals are bootstraps over
worlds within seeds.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical

from contexture.agents.roll_out import roll_out
from contexture.errors import InputError, told
from contexture.evaluation.compare import Progress
from contexture.evaluation.comparison import Comparison
from contexture.evaluation.metrics import ACTED, Metric, find
from contexture.evaluation.samples import CurveSamples, measure, tied_with_best
from contexture.models.state import state_bytes
from contexture.protocols import Agent, AgentCard, Environment, Trajectories

WORLDS = 200
PULLS = 200
EPISODES = 20
MOST_SIZES = 50


def compare_agents(
    environment: Environment,
    agents: Mapping[str, Agent],
    *,
    steps: int | None = None,
    context: Sequence[int] | None = None,
    worlds: int = WORLDS,
    seeds: Sequence[int] = (0, 1, 2),
    metric: str | None = None,
    name: str | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """Let every agent act in the same worlds of an environment.

    steps: of every agent in every world, over as many episodes as they make; by default 200 pulls of a bandit, and 20
    whole episodes elsewhere. context: after how many steps (or at which episodes, for returns) to score. worlds: for
    each of `seeds`. metric: cumulative-regret, or return, the default where an episode has more than one step. An agent
    that fails is named with its reason; after KeyboardInterrupt what is done is returned, marked incomplete.
    InputError for what cannot be scored.
    """
    from contexture.store.environment import environment as describe

    bandit = environment.horizon == 1
    chosen = pick_metric(metric, environment)
    length = steps or (PULLS if bandit else EPISODES * environment.horizon)
    sizes = scored(context, _most(chosen, length, environment))
    done: list[CurveSamples] = []
    refused: dict[str, str] = {}
    complete = True
    try:
        for index, (label, agent) in enumerate(agents.items()):

            def advance(share: float, index: int = index, label: str = label) -> None:
                if progress is not None:
                    progress(index, len(agents), share, f"{label}: acting")

            try:
                done.append(score(agent, environment, chosen, sizes, length, worlds, seeds, label, advance))
            except InputError as refusal:
                refused[label] = str(refusal)
            except Exception as fault:
                # An agent may be a user's own: its fault must not cost them the results of the others.
                refused[label] = f"{label} raised {told(fault)}"
    except KeyboardInterrupt:
        complete = False
    return Comparison(
        task=name or environment.card.name,
        metric=chosen.name,
        context=sizes,
        measurements=tuple(measure(samples) for samples in done),
        counted="episodes" if chosen.name == "return" else "pulls" if bandit else "steps",
        method="bootstrap over worlds within seeds",
        tied=tied_with_best(done),
        settings={**_settings(environment), "steps": length, "worlds per seed": worlds},
        skipped=refused,
        timing="Seconds are wall time per decision of one world, all worlds of a seed acting at once.",
        environment=describe(),
        command=command,
        seeds=tuple(seeds),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        complete=complete,
    )


def score(
    agent: Agent,
    environment: Environment,
    metric: Metric,
    sizes: Sequence[int],
    steps: int,
    worlds: int,
    seeds: Sequence[int],
    name: str,
    advance: Any = None,
) -> CurveSamples:
    """One agent's scores at each size, world by world."""
    watched = _Watched(agent)
    found, began = [], time.perf_counter()
    for index, seed in enumerate(seeds):

        def share(part: float, index: int = index) -> None:
            if advance is not None:
                advance((index + part) / len(seeds))

        played = roll_out(watched, environment, worlds=worlds, steps=steps, seed=seed, advance=share)
        found.append(curve(played, metric)[:, torch.tensor(sizes) - 1])
    seconds = (time.perf_counter() - began) / (len(seeds) * worlds * steps)
    model = getattr(agent, "model", None)
    return CurveSamples(
        name=name,
        kind=agent.card.kind,
        metric=metric,
        context=tuple(sizes),
        losses=torch.stack(found),
        answers=None,
        seconds=seconds,
        parameters=sum(value.numel() for value in model.parameters()) if isinstance(model, nn.Module) else 0,
        state_bytes=state_bytes(watched.last) // worlds,
    )


def curve(played: Trajectories, metric: Metric) -> Float[Tensor, "batch points"]:
    """The metric after every step, or at every episode that all worlds finished."""
    if metric.name == "cumulative-regret":
        assert played.regret is not None
        return played.regret.to(torch.float64).cumsum(1)
    episode = played.starts.to(torch.int64).cumsum(1) - 1
    earned = played.rewards.new_zeros(played.batch, int(episode.max()) + 1, dtype=torch.float64)
    return earned.scatter_add(1, episode, played.rewards.to(torch.float64))


def pick_metric(name: str | None, environment: Environment) -> Metric:
    """The metric asked for, or the environment's own."""
    usual = "cumulative-regret" if environment.horizon == 1 else "return"
    if name is not None and name not in ACTED:
        raise InputError(f"agents are scored by {' or '.join(ACTED)}, not by {name!r}")
    return find(name or usual)


def scored(context: Sequence[int] | None, most: int) -> tuple[int, ...]:
    """The sizes asked for, or at most fifty spread evenly; InputError where they are not among 1..most."""
    if most < 1:
        raise InputError("not one episode fits into so few steps: ask for more with --steps")
    if context is None:
        every = -(-most // MOST_SIZES)
        return tuple(sorted({*range(every, most + 1, every), most, *((1,) if every == 1 else ())}))
    strays = [size for size in context if not 1 <= size <= most]
    if strays or not context:
        raise InputError(f"agents can be scored after 1 to {most} here, not after {', '.join(map(str, strays))}")
    return tuple(sorted(set(context)))


def _most(metric: Metric, steps: int, environment: Environment) -> int:
    """The last step, or the last episode that every world finishes, however slowly it acts."""
    return steps if metric.name == "cumulative-regret" else steps // environment.horizon


def _settings(environment: Environment) -> dict[str, Any]:
    names: list[str] = [field.name for field in fields(environment)] if is_dataclass(environment) else []
    values = {name: getattr(environment, name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float | bool | None)}


class _Watched:
    """An agent that keeps its last state, to see how much it holds."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.last: Any = ()

    @property
    def card(self) -> AgentCard:
        return self.agent.card

    def begin(self, batch: int, *, generator: torch.Generator) -> Any:
        return self.agent.begin(batch, generator=generator)

    def act(self, state: Any, observation: Tensor) -> tuple[Categorical, Any]:
        return self.agent.act(state, observation)

    def observe(self, state: Any, action: Tensor, reward: Tensor, done: Tensor) -> Any:
        self.last = self.agent.observe(state, action, reward, done)
        return self.last
