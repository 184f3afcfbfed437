"""The laws of environments.

| law | what it holds |
|---|---|
| worlds | shapes and dtypes are what the protocol says; every tensor of a world has the batch first |
| same state | the same generator state gives the same worlds and outcomes, bit by bit, and another gives others |
| own generator | nothing reads or moves a global generator |
| values | a step leaves the world that it is given as it was |
| independence | what is done in one world changes nothing in the others |
| regret | it is never negative, and some action has none |
| telescope | where outcomes are certain, an episode's regrets are the best return less what was earned |
| horizon | an episode ends, at the latest after `horizon` steps |
| restart | a new episode starts where the first one did, in the chosen worlds alone |

The laws draw actions at random, from generators of their own.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contexture.discovery import build
from contexture.protocols import Environment, Outcome
from contexture.randomness import generator
from contexture.testing.errors import LawError
from contexture.testing.laws import run_laws

WORLDS = 12
STEPS = 40
SLACK = 1e-5


@dataclass(frozen=True, kw_only=True)
class EnvironmentCase:
    """An environment, and worlds to try it on."""

    environment: Environment

    def begin(self, seed: int = 0, worlds: int = WORLDS) -> Any:
        """Worlds of a seed."""
        return self.environment.begin(worlds, generator=generator(seed, "law", "worlds"))

    def actions(self, step: int, worlds: int = WORLDS) -> Tensor:
        """Random actions of a step."""
        source = generator(step, "law", "actions")
        return torch.randint(self.environment.num_actions, (worlds,), generator=source)

    def play(self, world: Any, steps: int = STEPS, *, seed: int = 0) -> tuple[list[Tensor], list[Outcome], Any]:
        """Observations and outcomes of random actions, over several episodes."""
        source, seen, outcomes = generator(seed, "law", "noise"), [], []
        for step in range(steps):
            seen.append(self.environment.observation(world))
            outcome, world = self.environment.step(world, self.actions(step), generator=source)
            outcomes.append(outcome)
            world = self.environment.restart(world, outcome.done)
        return seen, outcomes, world

    @property
    def is_certain(self) -> bool:
        """Whether outcomes depend on nothing but world and action, and the environment knows the best return."""
        first, second = (self.play(self.begin(), seed=seed)[1] for seed in (0, 1))
        same = all(torch.equal(a.reward, b.reward) for a, b in zip(first, second, strict=True))
        return same and hasattr(self.environment, "best_return")


def check_environment(environment: type[Any] | Environment, *, laws: tuple[str, ...] = ()) -> None:
    """Hold an environment, or the example of a class, to every law or the named ones; LawError at the first broken."""
    found = build(environment) if isinstance(environment, type) else environment
    run_laws(LAWS, EnvironmentCase(environment=found), waivers=found.card.waivers, only=laws)


def _same(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def law_worlds(case: EnvironmentCase) -> None:
    """Shapes and dtypes."""
    environment, law = case.environment, "worlds"
    for worlds in (1, WORLDS):
        world = case.begin(worlds=worlds)
        for name, tensor in zip(getattr(world, "_fields", ()), world, strict=True):
            if not isinstance(tensor, Tensor) or tensor.shape[:1] != (worlds,):
                raise LawError(law, f"{name} of a world has not the batch of {worlds} first")
        shown = environment.observation(world)
        if shown.shape != (worlds, environment.num_features) or not shown.is_floating_point():
            raise LawError(law, f"an observation is {shown.dtype} of shape {tuple(shown.shape)}")
        outcome, _ = environment.step(world, case.actions(0, worlds), generator=generator(0, "law"))
        if outcome.reward.shape != (worlds,) or not outcome.reward.is_floating_point():
            raise LawError(law, f"a reward is {outcome.reward.dtype} of shape {tuple(outcome.reward.shape)}")
        if outcome.done.shape != (worlds,) or outcome.done.dtype != torch.bool:
            raise LawError(law, f"done is {outcome.done.dtype} of shape {tuple(outcome.done.shape)}")


def law_same_state(case: EnvironmentCase) -> None:
    """Same state, same bits."""
    first, second, other = case.begin(), case.begin(), case.begin(seed=1)
    if not _same(first, second):
        raise LawError("same state", "the same generator state gives other worlds")
    if _same(first, other):
        raise LawError("same state", "another generator state gives the same worlds")
    (seen, outcomes, _), (again, repeated, _) = case.play(first), case.play(second)
    for step, (a, b, x, y) in enumerate(zip(seen, again, outcomes, repeated, strict=True)):
        if not (torch.equal(a, b) and _same(x, y)):
            raise LawError("same state", "the same generator state gives other outcomes", position=(step,))


def law_own_generator(case: EnvironmentCase) -> None:
    """No global generator."""
    torch.manual_seed(0)
    random.seed(0)
    before = (torch.get_rng_state(), random.getstate())
    first = case.play(case.begin())[0]
    if not torch.equal(torch.get_rng_state(), before[0]) or random.getstate() != before[1]:
        raise LawError("own generator", "a global generator was moved")
    torch.manual_seed(1)
    if not all(torch.equal(a, b) for a, b in zip(first, case.play(case.begin())[0], strict=True)):
        raise LawError("own generator", "a global generator was read")


def law_values(case: EnvironmentCase) -> None:
    """Worlds are values."""
    environment = case.environment
    _, world = environment.step(case.begin(), case.actions(1), generator=generator(0, "law"))
    before = [tensor.clone() for tensor in world]
    environment.observation(world)
    environment.regret(world, case.actions(0))
    environment.step(world, case.actions(0), generator=generator(0, "law"))
    environment.restart(world, torch.ones(WORLDS, dtype=torch.bool))
    if not _same(before, world):
        raise LawError("values", "acting in a world changed the world that was given")


def law_independence(case: EnvironmentCase) -> None:
    """Other worlds see nothing of what is done in one."""
    environment, world, changed = case.environment, case.begin(), case.begin()
    source, other = generator(0, "law", "noise"), generator(0, "law", "noise")
    for step in range(STEPS):
        actions = case.actions(step)
        moved = actions.clone()
        moved[0] = (moved[0] + 1) % environment.num_actions
        outcome, world = environment.step(world, actions, generator=source)
        outcome_changed, changed = environment.step(changed, moved, generator=other)
        world, changed = environment.restart(world, outcome.done), environment.restart(changed, outcome_changed.done)
        for name, a, b in zip(world._fields, world, changed, strict=True):
            if not torch.equal(a[1:], b[1:]):
                raise LawError("independence", f"an action in world 0 changed {name} of another", position=(step,))
        if not torch.equal(outcome.reward[1:], outcome_changed.reward[1:]):
            raise LawError("independence", "an action in world 0 changed another's reward", position=(step,))


def law_regret(case: EnvironmentCase) -> None:
    """Never below zero, and zero for a best action."""
    environment, world, source = case.environment, case.begin(), generator(0, "law", "noise")
    for step in range(STEPS):
        every = [torch.full((WORLDS,), action) for action in range(environment.num_actions)]
        costs = torch.stack([environment.regret(world, action) for action in every], 1)
        if bool((costs < -SLACK).any()):
            raise LawError("regret", "an action costs less than nothing", position=(step,))
        if bool((costs.amin(1) > SLACK).any()):
            raise LawError("regret", "every action costs something", position=(step,))
        outcome, world = environment.step(world, case.actions(step), generator=source)
        world = environment.restart(world, outcome.done)


def law_telescope(case: EnvironmentCase) -> None:
    """Regrets of an episode add up."""
    if not case.is_certain:
        return
    environment, world = case.environment, case.begin()
    source, step = generator(0, "law", "noise"), 0
    promised = environment.best_return(world)  # type: ignore[attr-defined]
    earned, regrets, over = torch.zeros(WORLDS), torch.zeros(WORLDS), torch.zeros(WORLDS, dtype=torch.bool)
    while not bool(over.all()):
        action = case.actions(step)
        regrets += environment.regret(world, action).masked_fill(over, 0.0)
        outcome, world = environment.step(world, action, generator=source)
        earned += outcome.reward.masked_fill(over, 0.0)
        over, step = over | outcome.done, step + 1
    missing = promised - earned - regrets
    if bool((missing.abs() > SLACK).any()):
        position = (int(missing.abs().argmax()),)
        raise LawError("telescope", "regrets do not add up to the best return less what was earned", position=position)


def law_horizon(case: EnvironmentCase) -> None:
    """Every episode ends."""
    environment, world = case.environment, case.begin()
    over, source = torch.zeros(WORLDS, dtype=torch.bool), generator(0, "law", "noise")
    for step in range(environment.horizon):
        outcome, world = environment.step(world, case.actions(step), generator=source)
        over = over | outcome.done
    if not bool(over.all()):
        raise LawError("horizon", f"an episode goes on after {environment.horizon} steps")


def law_restart(case: EnvironmentCase) -> None:
    """A new episode in the chosen worlds alone."""
    environment, world = case.environment, case.begin()
    start = environment.observation(world)
    for step in range(max(1, min(3, environment.horizon - 1))):
        _, world = environment.step(world, case.actions(step), generator=generator(0, "law"))
    chosen = torch.arange(WORLDS) % 2 == 0
    fresh = environment.restart(world, chosen)
    for name, before, after in zip(world._fields, world, fresh, strict=True):
        if not torch.equal(before[~chosen], after[~chosen]):
            raise LawError("restart", f"{name} changed in a world that was not restarted")
    shown = environment.observation(fresh)[chosen].abs()
    if not torch.allclose(shown, start[chosen].abs()):
        raise LawError("restart", "a new episode does not start as the first one did")
    for name, before, after in zip(
        environment.latents(world),
        environment.latents(world).values(),
        environment.latents(fresh).values(),
        strict=True,
    ):
        if before.is_floating_point() and not torch.equal(before, after):
            raise LawError("restart", f"a new episode changed {name}, which belongs to the world")


LAWS: Mapping[str, Callable[[EnvironmentCase], None]] = {
    "worlds": law_worlds,
    "same state": law_same_state,
    "own generator": law_own_generator,
    "values": law_values,
    "independence": law_independence,
    "regret": law_regret,
    "telescope": law_telescope,
    "horizon": law_horizon,
    "restart": law_restart,
}
