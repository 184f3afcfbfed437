"""Letting agents act: thousands of worlds at once, step by step, with what every step cost.

    observation ─▶ agent.act ─▶ action ─▶ environment.step ─▶ reward ─▶ agent.observe, and a new episode where one ended

What the agent draws and what the environment draws come from generators of their own, so that agents meet the same
worlds, and the noise of a step does not depend on how much an agent drew.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.models.state import repeat_state
from contexture.protocols import Agent, Environment, Trajectories
from contexture.randomness import generator


def roll_out(
    agent: Agent,
    environment: Environment,
    *,
    worlds: int,
    steps: int,
    seed: int,
    repeats: int = 1,
    label: Callable[[Any], Tensor] | None = None,
    advance: Callable[[float], None] | None = None,
) -> Trajectories:
    """Let an agent act for `steps` steps in each of `worlds` worlds, over as many episodes as that takes.

    repeats: how often the agent begins anew in each world, side by side in the batch; each has chance of its own.
    `label` is shown the worlds before every step and gives its targets; `advance` is told the share that is done.
    Raises InputError for no worlds or steps.

    >>> from contexture.agents.random_agent import RandomAgent
    >>> from contexture.environments.gaussian_bandit import GaussianBandit
    >>> bandit = GaussianBandit()
    >>> played = roll_out(RandomAgent(bandit), bandit, worlds=4, steps=10, seed=0)
    >>> tuple(played.regret.shape)
    (4, 10)
    """
    if min(worlds, steps, repeats) < 1:
        raise InputError(f"a roll-out needs at least one world and one step, not {worlds} and {steps}")
    drawn, acting, noise = (generator(seed, environment.card.name, part) for part in ("worlds", "actions", "noise"))
    world = repeat_state(environment.begin(worlds, generator=drawn), repeats)
    batch = worlds * repeats
    state = agent.begin(batch, generator=generator(seed, environment.card.name, "agent"))
    latents = environment.latents(world)
    seen: list[list[Tensor]] = [[], [], [], [], []]
    targets: list[Tensor] = []
    starts = torch.ones(batch, dtype=torch.bool)
    with torch.no_grad():
        for step in range(steps):
            observation = environment.observation(world)
            distribution, state = agent.act(state, observation)
            action = choose(distribution.probs, generator=acting)
            regret = environment.regret(world, action)
            if label is not None:
                targets.append(label(world))
            outcome, world = environment.step(world, action, generator=noise)
            state = agent.observe(state, action, outcome.reward, outcome.done)
            for kept, value in zip(seen, (observation, action, outcome.reward, starts, regret), strict=True):
                kept.append(value)
            starts = outcome.done
            world = environment.restart(world, outcome.done)
            if advance is not None:
                advance((step + 1) / steps)
    observations, actions, rewards, begun, regrets = (torch.stack(kept, 1) for kept in seen)
    return Trajectories(
        observations=observations,
        actions=actions,
        rewards=rewards,
        starts=begun,
        num_actions=environment.num_actions,
        targets=torch.stack(targets, 1) if targets else None,
        regret=regrets,
        latents=latents,
    )


def states_along(agent: Agent, played: Trajectories, *, seed: int = 0) -> Iterator[Any]:
    """The state of an agent at every step of a history, whoever made it, once it has seen what there was to see."""
    state = agent.begin(played.batch, generator=generator(seed, "states along"))
    for step in range(played.time):
        _, state = agent.act(state, played.observations[:, step])
        yield state
        if step + 1 < played.time:
            done = played.starts[:, step + 1]
            state = agent.observe(state, played.actions[:, step], played.rewards[:, step], done)


def choose(probabilities: Tensor, *, generator: torch.Generator) -> Int[Tensor, " batch"]:
    """One action for each row: exactly one number is drawn per row, whatever the probabilities."""
    return choose_by(probabilities, torch.rand(len(probabilities), 1, generator=generator, dtype=probabilities.dtype))


def choose_by(probabilities: Float[Tensor, "batch actions"], drawn: Float[Tensor, "batch 1"]) -> Int[Tensor, " batch"]:
    """One action for each row, by a number from [0, 1) that was drawn for it."""
    total = probabilities.cumsum(1)
    return (drawn * total[:, -1:] >= total).sum(1).clamp(max=probabilities.shape[1] - 1)


def best_actions(environment: Environment, world: Any) -> Tensor:
    """Whether each action is a best one, bool [batch, actions]: what who knows the world would do."""
    batch = len(next(iter(environment.latents(world).values())))
    costs = torch.stack(
        [environment.regret(world, torch.full((batch,), action)) for action in range(environment.num_actions)], 1
    )
    return costs <= costs.amin(1, keepdim=True) + 1e-6


def returns(trajectories: Trajectories) -> list[list[float]]:
    """The sum of rewards of every whole or begun episode, for each world in order."""
    found = []
    for rewards, starts in zip(trajectories.rewards, trajectories.starts, strict=True):
        episode = starts.to(torch.int64).cumsum(0) - 1
        found.append(torch.zeros(int(episode[-1]) + 1, dtype=rewards.dtype).index_add(0, episode, rewards).tolist())
    return found
