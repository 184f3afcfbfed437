"""The laws of environments and agents over everything registered, and mutants that each law must refuse by its name."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import Counts, greedy
from contexture.agents.empirical_mean import EmpiricalMean
from contexture.agents.lin_ucb import LinUCB
from contexture.agents.q_learning import QLearning
from contexture.agents.random_agent import RandomAgent
from contexture.agents.roll_out import best_actions, choose, returns, roll_out
from contexture.agents.thompson import Thompson
from contexture.agents.ucb import UCB
from contexture.discovery import registered
from contexture.environments.darkroom import Darkroom, Room
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.environments.linear_bandit import LinearBandit
from contexture.environments.tabular_mdp import TabularMDP
from contexture.errors import InputError
from contexture.protocols import AgentCard, EnvironmentCard, Outcome
from contexture.randomness import generator
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
        "q-learning",
        "random",
        "thompson",
        "ucb",
        "ucb-vi",
    }
    assert classical <= registered("agents").keys()


def test_a_room_pays_at_the_goal_and_ends_on_time() -> None:
    room = Darkroom(size=5, horizon=3)
    world = room.begin(1, generator=generator(0))._replace(goal=torch.tensor([[3, 3]]))
    rewards, costs = [], []
    for action in (1, 3, 0):  # one step up each coordinate from the centre (2, 2), then stay
        costs.append(room.regret(world, torch.tensor([action])).item())
        outcome, world = room.step(world, torch.tensor([action]), generator=generator(0))
        rewards.append(outcome.reward.item())
    assert rewards == [0.0, 1.0, 1.0]
    assert costs == [0.0, 0.0, 0.0]
    assert outcome.done.item()
    away = room.begin(1, generator=generator(0))._replace(goal=torch.tensor([[3, 3]]))
    assert room.regret(away, torch.tensor([2])).item() == 2.0  # two moves of three are lost with one step away


def test_goals_of_training_and_test_are_apart() -> None:
    cells = {
        part: {tuple(cell) for cell in Darkroom(goals=part).goal_cells.tolist()} for part in ("all", "train", "test")
    }
    assert len(cells["test"]) == 8
    assert cells["train"] | cells["test"] == cells["all"]
    assert not cells["train"] & cells["test"]


def test_values_of_a_decision_process_by_hand() -> None:
    process = TabularMDP(num_states=2, num_actions=2, horizon=2, noise=0.0)
    rewards = torch.tensor([[[0.2, 0.6], [1.0, 0.0]]])
    transitions = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]]])
    values = process._solve(rewards, transitions)
    # With one step left: the reward. With two: 0.2 + 1.0, 0.6 + (0.6 + 1.0) / 2;  1.0 + 0.6, 0.0 + 0.6
    assert torch.allclose(values[0, 1], rewards[0])
    assert torch.allclose(values[0, 0], torch.tensor([[1.2, 1.4], [1.6, 0.6]]))


def test_bandits_reach_the_known_regret() -> None:
    """Cumulative regret at 50 and 200 pulls of 5 arms with means U(0, 1) and noise 0.3, of 1,000 worlds elsewhere."""
    bandit = GaussianBandit()
    expected = {EmpiricalMean: (3.5, 7.8), UCB: (5.3, 8.4), Thompson: (4.8, 7.6), RandomAgent: (16.7, 66.6)}
    for agent, anchors in expected.items():
        played = roll_out(agent(bandit), bandit, worlds=1000, steps=200, seed=3)
        assert played.regret is not None
        total = played.regret.cumsum(1)
        for step, anchor in zip((50, 200), anchors, strict=True):
            error = float(total[:, step - 1].std()) / 1000**0.5
            assert abs(float(total[:, step - 1].mean()) - anchor) < 4 * 2**0.5 * error + 0.05


def test_the_posterior_of_thompson_by_hand() -> None:
    bandit = GaussianBandit(num_arms=2)
    agent = Thompson(bandit, prior_mean=0.0, prior_variance=1.0, noise=1.0)
    state = agent.begin(1, generator=generator(0))
    for reward in (1.0, 2.0):
        state = agent.observe(state, torch.tensor([0]), torch.tensor([reward]), torch.tensor([True]))
    mean, variance = agent.posterior(state)
    assert torch.allclose(mean, torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert torch.allclose(variance, torch.tensor([[1 / 3, 1.0]], dtype=torch.float64))


def test_the_inverse_of_lin_ucb_is_that_of_its_matrix() -> None:
    bandit = LinearBandit(num_arms=4, dim=3)
    agent, arms = LinUCB(bandit, ridge=0.5), LinearBandit(num_arms=4, dim=3).arms.double()
    state = agent.begin(1, generator=generator(0))
    matrix, moment = 0.5 * torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for arm, reward in ((0, 1.0), (2, -0.5), (2, 0.25), (3, 2.0)):
        state = agent.observe(state, torch.tensor([arm]), torch.tensor([reward]), torch.tensor([True]))
        matrix, moment = matrix + torch.outer(arms[arm], arms[arm]), moment + reward * arms[arm]
    assert torch.allclose(state.inverse[0], matrix.inverse())
    expected = arms @ matrix.inverse() @ moment + (arms @ matrix.inverse() * arms).sum(1).sqrt()
    assert torch.allclose(agent.bounds(state)[0], expected)


def test_q_learning_learns_from_one_step_by_hand() -> None:
    room = Darkroom(size=3, horizon=9)
    agent = QLearning(room, rate=0.5, discount=0.5, exploration=0.0)
    state = agent.begin(1, generator=generator(0))
    here, there = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    state = agent.act(state, here)[1]
    state = agent.observe(state, torch.tensor([1]), torch.tensor([1.0]), torch.tensor([False]))
    said, state = agent.act(state, there)
    assert state.values[0, room.states(here)[0], 1].item() == 0.5
    assert said.probs.tolist() == [[0.2] * 5]  # nothing is known of this cell: all alike
    state = agent.observe(state, torch.tensor([2]), torch.tensor([0.0]), torch.tensor([False]))
    state = agent.act(state, here)[1]
    assert state.values[0, room.states(there)[0], 2].item() == 0.125  # half of the discounted best value, 0.25


def test_episodes_are_counted_apart() -> None:
    process = TabularMDP(horizon=4, noise=0.0)
    played = roll_out(RandomAgent(process), process, worlds=3, steps=10, seed=0)
    assert played.starts.tolist() == [[True, False, False, False] * 2 + [True, False]] * 3
    found = returns(played)
    assert [len(episodes) for episodes in found] == [3, 3, 3]
    assert found[1][2] == pytest.approx(float(played.rewards[1, 8:].sum()))


def test_best_actions_are_those_without_regret() -> None:
    room = Darkroom(size=5)
    world = room.begin(1, generator=generator(0))._replace(goal=torch.tensor([[4, 3]]))
    assert best_actions(room, world).tolist() == [[False, True, False, True, False]]


def test_choosing_draws_one_number_for_each_row() -> None:
    probabilities = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]).repeat(2000, 1)
    chosen = choose(probabilities, generator=generator(1)).view(2000, 2)
    assert chosen[:, 0].unique().tolist() == [1]
    assert chosen[:, 1].unique().tolist() == [0, 2]
    assert abs(float((chosen[:, 1] == 0).double().mean()) - 0.5) < 0.05


def test_bad_settings_are_refused_in_one_sentence() -> None:
    for bad in (
        lambda: GaussianBandit(num_arms=1),
        lambda: GaussianBandit(noise=-1.0),
        lambda: Darkroom(size=1),
        lambda: Darkroom(held_out=81),
        lambda: LinUCB(GaussianBandit()),
        lambda: QLearning(Darkroom(), rate=0.0),
        lambda: Thompson(GaussianBandit(), noise=0.0),
        lambda: roll_out(RandomAgent(GaussianBandit()), GaussianBandit(), worlds=0, steps=1, seed=0),
    ):
        with pytest.raises(InputError) as refusal:
            bad()
        assert "\n" not in str(refusal.value)


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
