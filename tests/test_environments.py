"""Environments, agents and roll-outs on small examples with the answer written out, and against known regrets."""

import pytest
import torch

from contexture.agents.empirical_mean import EmpiricalMean
from contexture.agents.lin_ucb import LinUCB
from contexture.agents.linear_thompson import LinearThompson
from contexture.agents.q_learning import QLearning
from contexture.agents.random_agent import RandomAgent
from contexture.agents.roll_out import best_actions, choose, returns, roll_out
from contexture.agents.thompson import Thompson
from contexture.agents.ucb import UCB
from contexture.environments.darkroom import Darkroom
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.environments.linear_bandit import LinearBandit
from contexture.environments.tabular_mdp import TabularMDP
from contexture.errors import InputError
from contexture.randomness import generator


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


def test_draws_of_linear_thompson_have_the_posteriors_mean_and_covariance() -> None:
    bandit = LinearBandit(num_arms=3, dim=2, noise=0.5)
    agent, arms = LinearThompson(bandit, variance=2.0), bandit.arms.double()
    state = agent.begin(1, generator=generator(0))
    for arm, reward in ((0, 1.0), (2, -0.5)):
        state = agent.observe(state, torch.tensor([arm]), torch.tensor([reward]), torch.tensor([True]))
    precision = torch.eye(2, dtype=torch.float64) / 2.0 + (arms[[0, 2]].mT @ arms[[0, 2]]) / 0.25
    mean = precision.inverse() @ (1.0 * arms[0] - 0.5 * arms[2]) / 0.25
    draws = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64).unsqueeze(1)
    said = agent.drawn(state, draws).squeeze(1)
    assert torch.allclose(said[0], arms @ mean)
    root = said[1:] - said[0]  # rows: what a unit of each draw adds to every arm
    assert torch.allclose(root.mT @ root, arms @ precision.inverse() @ arms.mT)
    with pytest.raises(InputError, match="noise and variance above zero"):
        LinearThompson(LinearBandit(noise=0.0))


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
