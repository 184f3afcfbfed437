"""The laws of environments and agents over everything registered, and mutants that each law must refuse by its name."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import Counts, greedy
from contexture.agents.empirical_mean import EmpiricalMean
from contexture.agents.random_agent import RandomAgent
from contexture.discovery import registered
from contexture.environments.darkroom import Darkroom, Room
from contexture.protocols import AgentCard, EnvironmentCard, Outcome
from contexture.testing import agents as agent_laws
from contexture.testing import environments as environment_laws
from contexture.testing.errors import LawError


@pytest.mark.parametrize("name", registered("environments"))
def test_every_environment_keeps_the_laws(name: str) -> None:
    environment_laws.check_environment(registered("environments")[name])


@pytest.mark.parametrize("name", registered("agents"))
def test_every_agent_keeps_the_laws(name: str) -> None:
    agent_laws.check_agent(registered("agents")[name])


def test_every_environment_and_agent_is_found() -> None:
    assert list(registered("environments")) == [
        "bernoulli-bandit", "darkroom", "gaussian-bandit", "key-to-door", "large-darkroom", "linear-bandit",
        "memory-length", "permuted-darkroom", "t-maze", "tabular-mdp",
    ]  # fmt: skip
    classical = {
        "beta-thompson",
        "empirical-mean",
        "lcb",
        "lin-ucb",
        "linear-thompson",
        "q-learning",
        "random",
        "thompson",
        "ucb",
        "ucb-vi",
    }
    assert classical <= registered("agents").keys()


@dataclass(frozen=True, kw_only=True)
class Mutant(Darkroom):
    card: ClassVar[EnvironmentCard] = replace(Darkroom.card, name="mutant")
    size: int = 4
    horizon: int = 6


def test_the_unmutated_room_keeps_the_laws() -> None:
    environment_laws.check_environment(Mutant())


class FlatCells(Mutant):
    def begin(self, batch: int, *, generator: torch.Generator) -> Room:
        world = super().begin(batch, generator=generator)
        return world._replace(cell=world.cell.mT) if batch > 2 else world


class IntegerObservations(Mutant):
    def observation(self, world: Room) -> Tensor:
        return world.cell


class DoneAsNumber(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        outcome, after = super().step(world, action, generator=generator)
        return outcome._replace(done=outcome.done.to(torch.int64)), after


class OneGoal(Mutant):
    def begin(self, batch: int, *, generator: torch.Generator) -> Room:
        world = super().begin(batch, generator=generator)
        return world._replace(goal=torch.zeros_like(world.goal))


class Forgetful(Mutant):
    """Draws from the generator of the call and from a counter of its own."""

    count: ClassVar[list[int]] = [0]

    def begin(self, batch: int, *, generator: torch.Generator) -> Room:
        self.count[0] += 1
        world = super().begin(batch, generator=generator)
        return world._replace(goal=(world.goal + self.count[0]) % self.size)


class LateNoise(Mutant):
    count: ClassVar[list[int]] = [0]

    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        self.count[0] += 1
        outcome, after = super().step(world, action, generator=generator)
        return outcome._replace(reward=outcome.reward + self.count[0] // 40), after


class GlobalNoise(Mutant):
    def observation(self, world: Room) -> Tensor:
        return super().observation(world) + 0 * torch.rand(1)


class GlobalStart(Mutant):
    def begin(self, batch: int, *, generator: torch.Generator) -> Room:
        state = torch.get_rng_state()
        goal = torch.randint(self.size, (batch, 2))
        torch.set_rng_state(state)
        return super().begin(batch, generator=generator)._replace(cell=goal)


class PythonNoise(Mutant):
    def begin(self, batch: int, *, generator: torch.Generator) -> Room:
        import random

        random.random()
        return super().begin(batch, generator=generator)


class MovesInPlace(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        outcome, after = super().step(world, action, generator=generator)
        world.steps.add_(1)
        return outcome, after


class RestartsInPlace(Mutant):
    def restart(self, world: Room, chosen: Tensor) -> Room:
        world.cell[chosen] = self.size // 2
        return super().restart(world, chosen)


class RegretInPlace(Mutant):
    def regret(self, world: Room, action: Tensor) -> Tensor:
        cost = super().regret(world, action)
        world.cell.clamp_(max=1)
        return cost


class SharedReward(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        outcome, after = super().step(world, action, generator=generator)
        return outcome._replace(reward=outcome.reward + action[0]), after


class SharedMoves(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        moved = action.clone()
        moved[-1] = action[0]
        return super().step(world, moved, generator=generator)


class SharedClock(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        outcome, after = super().step(world, action, generator=generator)
        return outcome, after._replace(steps=after.steps + (action[0] == 1))


class NegativeRegret(Mutant):
    def regret(self, world: Room, action: Tensor) -> Tensor:
        return super().regret(world, action) - (action == 0) * 0.01


class NoBest(Mutant):
    def regret(self, world: Room, action: Tensor) -> Tensor:
        return super().regret(world, action) + 0.01


class LateBest(Mutant):
    def regret(self, world: Room, action: Tensor) -> Tensor:
        return super().regret(world, action) + 0.5 * (world.steps == self.horizon - 1)


class TwiceTheRegret(Mutant):
    def regret(self, world: Room, action: Tensor) -> Tensor:
        return 2 * super().regret(world, action)


class HopefulReturn(Mutant):
    def regret(self, world: Room, action: Tensor) -> Tensor:
        return Darkroom.regret(Darkroom(size=self.size, horizon=self.horizon), world, action)

    def best_return(self, world: Room) -> Tensor:
        return super().best_return(world) + (world.steps == 0)


class LastStepFree(Mutant):
    def regret(self, world: Room, action: Tensor) -> Tensor:
        return super().regret(world, action) * (world.steps < self.horizon - 1)


class NeverEnds(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        outcome, after = super().step(world, action, generator=generator)
        return outcome._replace(done=torch.zeros_like(outcome.done)), after


class OneStepLate(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        outcome, after = super().step(world, action, generator=generator)
        return outcome._replace(done=after.steps > self.horizon), after


class EndsInSomeWorlds(Mutant):
    def step(self, world: Room, action: Tensor, *, generator: torch.Generator) -> tuple[Outcome, Room]:
        outcome, after = super().step(world, action, generator=generator)
        return outcome._replace(done=outcome.done & (world.goal[:, 0] > 0)), after


class RestartsAll(Mutant):
    def restart(self, world: Room, chosen: Tensor) -> Room:
        return super().restart(world, torch.ones_like(chosen))


class StaysThere(Mutant):
    def restart(self, world: Room, chosen: Tensor) -> Room:
        return world._replace(steps=world.steps.masked_fill(chosen, 0))


class ClockForAll(Mutant):
    def restart(self, world: Room, chosen: Tensor) -> Room:
        return super().restart(world, chosen)._replace(steps=torch.zeros_like(world.steps))


ENVIRONMENT_MUTANTS = {
    "worlds": (FlatCells, IntegerObservations, DoneAsNumber),
    "same state": (OneGoal, Forgetful, LateNoise),
    "own generator": (GlobalNoise, GlobalStart, PythonNoise),
    "values": (MovesInPlace, RestartsInPlace, RegretInPlace),
    "independence": (SharedReward, SharedMoves, SharedClock),
    "regret": (NegativeRegret, NoBest, LateBest),
    "telescope": (TwiceTheRegret, HopefulReturn, LastStepFree),
    "horizon": (NeverEnds, OneStepLate, EndsInSomeWorlds),
    "restart": (RestartsAll, StaysThere, ClockForAll),
}


def test_every_law_of_environments_has_three_mutants() -> None:
    assert ENVIRONMENT_MUTANTS.keys() == environment_laws.LAWS.keys()
    assert {len(mutants) for mutants in ENVIRONMENT_MUTANTS.values()} == {3}


@pytest.mark.parametrize(
    ("law", "mutant"), [(law, mutant) for law, mutants in ENVIRONMENT_MUTANTS.items() for mutant in mutants]
)
def test_a_mutant_environment_is_refused(law: str, mutant: type[Mutant]) -> None:
    with pytest.raises(LawError) as refusal:
        environment_laws.check_environment(mutant(), laws=(law,))
    assert refusal.value.law == law


class MutantAgent(EmpiricalMean):
    card: ClassVar[AgentCard] = replace(EmpiricalMean.card, name="mutant")


class LacksAnAction(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        return greedy(state.means[:, :-1]), state


class LateLogits(MutantAgent):
    """Gives something that does not add up to one, from the tenth step on."""

    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        said, state = super().act(state, observation)
        if state.pulls.sum() > 10 * len(state.pulls):
            said.probs = said.probs * 1.01
        return said, state


class NotANumber(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        said, state = super().act(state, observation)
        said.probs = torch.where(state.pulls[:, :1] == 0, torch.nan, said.probs)
        return said, state


class Restless(MutantAgent):
    calls: ClassVar[list[int]] = [0]

    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        self.calls[0] += 1
        return greedy(state.means.roll(self.calls[0] // 7, 1)), state


class KeepsMemory(MutantAgent):
    """Holds sums beside its state."""

    held: ClassVar[list[Tensor]] = []

    def observe(self, state: Counts, action: Tensor, reward: Tensor, done: Tensor) -> Counts:
        self.held.append(reward.to(state.sums.dtype))
        return super().observe(state, action, reward + 0.1 * len(self.held) * (action % 2), done)


class CountsBeginnings(MutantAgent):
    begun: ClassVar[list[int]] = [0]

    def begin(self, batch: int, *, generator: torch.Generator) -> Counts:
        self.begun[0] += 1
        state = super().begin(batch, generator=generator)
        return state._replace(sums=state.sums + self.begun[0], pulls=state.pulls + 1)


class Foresees(MutantAgent):
    """Remembers the rewards of the last history that it was shown."""

    last: ClassVar[dict[str, Tensor]] = {}

    def observe(self, state: Counts, action: Tensor, reward: Tensor, done: Tensor) -> Counts:
        self.last["reward"] = reward.to(state.sums.dtype)
        return super().observe(state, action, reward, done)

    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        total = self.last.get("reward", state.sums[:, 0]).sum()
        tilt = total.abs() * torch.arange(state.sums.shape[1])
        return Categorical(probs=(state.sums + 1).abs() + tilt, validate_args=False), state


class Haunted(MutantAgent):
    """Begins with what the last history left."""

    left: ClassVar[dict[str, Tensor]] = {}

    def begin(self, batch: int, *, generator: torch.Generator) -> Counts:
        state = super().begin(batch, generator=generator)
        return state._replace(sums=self.left.get("sums", state.sums), pulls=state.pulls + 1)

    def observe(self, state: Counts, action: Tensor, reward: Tensor, done: Tensor) -> Counts:
        after = super().observe(state, action, reward, done)
        self.left["sums"] = after.sums
        return after


class AddsInPlace(MutantAgent):
    def observe(self, state: Counts, action: Tensor, reward: Tensor, done: Tensor) -> Counts:
        after = super().observe(state, action, reward, done)
        state.sums.copy_(after.sums)
        return after


class ForgetsInPlace(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        state.sums.mul_(0.999)
        return super().act(state, observation)


class SortsInPlace(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        said = super().act(state, observation)
        state.pulls.clamp_(max=5)
        return said


class Averages(MutantAgent):
    def observe(self, state: Counts, action: Tensor, reward: Tensor, done: Tensor) -> Counts:
        return super().observe(state, action, reward - reward.mean(), done)


class FollowsTheFirst(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        said, state = super().act(state, observation)
        return Categorical(probs=said.probs[:1].expand_as(said.probs), validate_args=False), state


class SharesSums(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        return Categorical(probs=1 + (state.sums + 0.01 * state.sums.roll(1, 0)).abs(), validate_args=False), state


class DrawsGlobally(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        return greedy(torch.rand(state.sums.shape, dtype=state.sums.dtype)), state


class SeedsGlobally(MutantAgent):
    def begin(self, batch: int, *, generator: torch.Generator) -> Counts:
        torch.manual_seed(3)
        return super().begin(batch, generator=generator)


class DrawsInPython(MutantAgent):
    def begin(self, batch: int, *, generator: torch.Generator) -> Counts:
        import random

        random.random()
        return super().begin(batch, generator=generator)


class Worst(MutantAgent):
    def act(self, state: Counts, observation: Tensor) -> tuple[Categorical, Counts]:
        return greedy(-state.means.nan_to_num(posinf=-1)), state


class SecondBest(MutantAgent):
    """Ignores rewards."""

    def observe(self, state: Counts, action: Tensor, reward: Tensor, done: Tensor) -> Counts:
        return super().observe(state, action, torch.zeros_like(reward), done)


class WrongArm(MutantAgent):
    """Credits the arm beside the one that was pulled."""

    def observe(self, state: Counts, action: Tensor, reward: Tensor, done: Tensor) -> Counts:
        return super().observe(state, (action + 1) % state.sums.shape[1], reward, done)


AGENT_MUTANTS: dict[str, tuple[Any, ...]] = {
    "distribution": (LacksAnAction, LateLogits, NotANumber),
    "history": (Restless, KeepsMemory, CountsBeginnings),
    "order": (Foresees, Restless, Haunted),
    "values": (AddsInPlace, ForgetsInPlace, SortsInPlace),
    "worlds": (Averages, FollowsTheFirst, SharesSums),
    "own generator": (DrawsGlobally, SeedsGlobally, DrawsInPython),
    "competence": (Worst, SecondBest, WrongArm),
}


def test_every_law_of_agents_has_three_mutants() -> None:
    assert AGENT_MUTANTS.keys() == agent_laws.LAWS.keys()
    assert {len(mutants) for mutants in AGENT_MUTANTS.values()} == {3}


@pytest.mark.parametrize(
    ("law", "mutant"), [(law, mutant) for law, mutants in AGENT_MUTANTS.items() for mutant in mutants]
)
def test_a_mutant_agent_is_refused(law: str, mutant: type[MutantAgent]) -> None:
    with pytest.raises(LawError) as refusal:
        agent_laws.check_agent(mutant(EmpiricalMean.example().environment), laws=(law,))
    assert refusal.value.law == law


def test_the_unmutated_agent_keeps_the_laws() -> None:
    agent_laws.check_agent(MutantAgent(EmpiricalMean.example().environment))


def test_a_waiver_that_is_not_needed_is_refused() -> None:
    class Idle(RandomAgent):
        card: ClassVar[AgentCard] = replace(RandomAgent.card, name="idle", waivers={"worlds": "it has none"})

    with pytest.raises(LawError, match="remove the waiver"):
        agent_laws.check_agent(Idle(RandomAgent.example().environment))
