"""Learning histories, which of them count, models that foresee, and agents that plan: small cases written out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import contexture
from contexture.agents.history_filter import returns_of, utility, weights
from contexture.agents.history_set import HistorySet
from contexture.agents.in_context import InContextAgent
from contexture.agents.planning import PlanningAgent
from contexture.agents.random_agent import RandomAgent
from contexture.agents.roll_out import roll_out
from contexture.claims.rooms import Astray
from contexture.cli import main
from contexture.environments.darkroom import Darkroom
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.errors import InputError
from contexture.models.backbone import BackboneConfig
from contexture.models.decisions import DecisionState
from contexture.models.planning import Foresight, PlanningModel, PlanningModelConfig, outcomes_of
from contexture.models.state import state_bytes
from contexture.protocols import Trajectories
from contexture.randomness import generator
from contexture.tasks.learning_histories import LearningHistories
from contexture.training.config import TaskChoice, TrainingConfig, model_from_json, model_to_json
from contexture.training.loop import Trainer, train
from contexture.training.losses import losses
from contexture.training.publish import publish
from contexture.training.recipes import darkroom

ROOM = Darkroom(size=3, horizon=4)
SMALL: dict[str, Any] = {
    "settings": {"size": 3, "horizon": 4, "held_out": 2},
    "episodes": 6,
    "worlds": 3,
    "repeats": 4,
}


def planner(pattern: str = "softmax*2", **changes: Any) -> PlanningModel:
    backbone = BackboneConfig(pattern=pattern, width=16, num_heads=2)
    config = PlanningModelConfig(num_actions=5, num_features=2, backbone=backbone, horizon=4, **changes)
    return PlanningModel(config, generator=generator("planning")).double()


def test_steady_improvement_is_worth_more_than_a_fall_or_nothing() -> None:
    returns = torch.tensor([[0.0, 4.0, 8.0], [0.0, 8.0, 4.0], [0.0, 0.0, 0.0]])
    # (mean + highest - lowest) / 16, and 1 - 4 / 8 where it falls once by 4
    assert utility(returns, 8.0).tolist() == [0.75 + 1.0, 0.75 + 0.5, 1.0]
    assert utility(returns, 8.0, balance=0.0).tolist() == [0.75, 0.75, 0.0]
    scores = utility(returns, 8.0).view(1, 3)
    assert weights(scores)[0].tolist() == pytest.approx([1.0, 1 / 3, 0.0])


def test_returns_are_those_of_stretches() -> None:
    assert returns_of(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]), 2).tolist() == [[3.0, 7.0]]


def test_repeats_of_a_roll_out_share_their_world_and_not_their_chance() -> None:
    played = roll_out(RandomAgent(ROOM), ROOM, worlds=2, repeats=3, steps=12, seed=0)
    goals = played.latents["goal"].view(2, 3, 2)
    assert bool((goals == goals[:, :1]).all())
    assert not torch.equal(played.actions[0], played.actions[1])
    assert torch.equal(goals[:, 0], roll_out(RandomAgent(ROOM), ROOM, worlds=2, steps=1, seed=0).latents["goal"])


def test_a_set_holds_its_worlds_in_order_with_the_corrupted_first() -> None:
    few = HistorySet(**{**SMALL, "corrupted": 0.5})
    drawn = few.collect()
    goals = drawn.latents["goal"].view(3, 4, 2)
    assert bool((goals == goals[:, :1]).all())
    spoiled = few._play(RandomAgent(few.acted_in), 2, best=False)
    assert torch.equal(drawn.actions.view(3, 4, -1)[:, :2].flatten(0, 1), spoiled.actions)
    assert drawn.targets is None
    assert few.collect(best=True).targets is not None


def test_one_episode_in_so_many_is_shown_with_what_the_source_did() -> None:
    task = LearningHistories(histories=HistorySet(**SMALL), every=3)
    whole, shown = task.histories.collect(), task.collected
    assert torch.equal(shown.actions, torch.cat((whole.actions[:, 0:4], whole.actions[:, 12:16]), 1))
    assert shown.targets is not None
    assert torch.equal(shown.targets, shown.actions)
    assert shown.starts.sum(1).tolist() == [2] * 12


def test_permuted_weights_are_the_same_for_other_histories() -> None:
    kept = LearningHistories(histories=HistorySet(**SMALL), every=1, keep="improving")
    permuted = replace(kept, keep="permuted")
    assert torch.equal(kept.weights.sort(1).values, permuted.weights.sort(1).values)
    assert not torch.equal(kept.weights, permuted.weights)
    assert kept.weights.amin(1).tolist() == [0.0] * 3
    assert kept.weights.amax(1).tolist() == [1.0] * 3


def test_agents_that_act_at_random_are_seldom_drawn() -> None:
    histories = HistorySet(settings={"size": 5, "horizon": 10}, worlds=8, repeats=10, corrupted=0.3)
    task = LearningHistories(histories=histories, keep="improving")
    share = task.weights / task.weights.sum(1, keepdim=True)
    assert float(share[:, :3].sum(1).mean()) < 0.1  # three in ten, if all were drawn alike


def test_pulls_of_a_bandit_are_taken_ten_at_a_time() -> None:
    histories = HistorySet(environment="gaussian-bandit", source="ucb", episodes=4, worlds=2, repeats=3)
    task = LearningHistories(histories=histories, every=1, keep="improving", targets="best")
    drawn = task.sample(5, generator=generator(0))
    assert drawn.actions.shape == (5, 40)
    assert drawn.targets is not None
    assert torch.equal(drawn.targets[:, 0], drawn.latents["means"].argmax(1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"every": 41}, "one episode in 41"),
        ({"keep": "best"}, "all, improving or permuted"),
        ({"targets": "behaviour"}, "source or best"),
        ({"histories": {"worlds": 0}}, "at least one episode, world"),
        ({"histories": {"corrupted": 1.5}}, "between 0 and 1"),
        ({"histories": {"source": "nobody"}}, "nobody"),
        ({"histories": {"source_settings": {"speed": 1}}}, "cannot be built from"),
        ({"histories": {"environment": "key-to-door"}}, "differ in length"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        LearningHistories(**settings).sample(1, generator=generator(0))


def steps_of(rewards: list[float], starts: list[bool]) -> Trajectories:
    time = len(rewards)
    return Trajectories(
        observations=torch.arange(2.0 * time).view(1, time, 2),
        actions=torch.zeros(1, time, dtype=torch.int64),
        rewards=torch.tensor([rewards]),
        starts=torch.tensor([starts]),
        num_actions=5,
        targets=torch.zeros(1, time, dtype=torch.int64),
    )


def test_outcomes_by_hand() -> None:
    values, known = outcomes_of(steps_of([1.0, 0.0, 1.0], [True, False, True]), horizon=4)
    assert values[0].tolist() == [[2.0, 2.0, 1.0, 0.25], [2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.25]]
    # What would have been seen after the last step of an episode is unknown.
    assert known[0].tolist() == [[True] * 4, [False, False, True, True], [False, False, True, True]]


def test_foresight_adds_the_squared_errors_of_what_was_done() -> None:
    steps = steps_of([1.0, 0.0, 1.0], [True, False, True]).to(dtype=torch.float64)
    without, _ = losses(planner(balance=0.0), steps)
    model = planner(balance=2.0)
    found, _ = losses(model, steps)
    said = model(steps.observations, steps.actions, steps.rewards, steps.starts).outcomes[0, :, 0]
    values, known = outcomes_of(steps, 4)
    expected = 2 * ((said - values[0]).square() * known[0]).sum(1)
    assert torch.allclose((found - without)[0, 0], expected)


@pytest.mark.parametrize("pattern", ["softmax*2", "delta-rule"])
def test_foreseeing_step_by_step_is_reading_the_whole_history(pattern: str) -> None:
    model = planner(pattern)
    played = roll_out(RandomAgent(ROOM), ROOM, worlds=2, steps=9, seed=0).to(dtype=torch.float64)
    whole = model(played.observations, played.actions, played.rewards, played.starts)
    state = model.init_state(2, device="cpu", dtype=torch.float64)
    for step in range(9):
        said, state = model.decide(played.observations[:, step], state)
        assert torch.allclose(said.scores, whole.scores[:, step], atol=1e-10)
        assert torch.allclose(said.outcomes, whole.outcomes[:, step], atol=1e-10)
        done = played.starts[:, min(step + 1, 8)]
        state = model.observe(state, played.actions[:, step], played.rewards[:, step], done)


class Told(PlanningModel):
    """Foresees a line: action 1 moves right by one and pays one from 1 on, where 3 more are said to follow."""

    def decide(self, observation: Tensor, state: DecisionState) -> tuple[Foresight, DecisionState]:
        _, state = super().decide(observation, state)
        place = observation[:, :1]
        outcomes = torch.zeros(len(place), 5, 4, dtype=torch.float64)
        outcomes[:, 1, 0] = 1.0
        outcomes[:, 1, 2] = (place[:, 0] >= 1).double()
        outcomes[:, 1, 3] = torch.where(place[:, 0] >= 1, 1.0, 0.0)
        scores = torch.zeros(len(place), 5, dtype=torch.float64)
        scores[:, 1] = 9.0
        return Foresight(scores, outcomes), state


def test_planning_looks_past_the_first_step() -> None:
    model = Told(planner().config, generator=generator("told")).double().requires_grad_(False)
    start = torch.zeros(1, 2, dtype=torch.float64)
    said, state = model.decide(start, model.init_state(1, device="cpu", dtype=torch.float64))
    values = {depth: PlanningAgent(ROOM, model, depth=depth)._look_ahead(said, start, state) for depth in (1, 2, 3)}
    # One step foresees nothing. Two: only after action 1 does the next step pay, a return of horizon 4. Three: after 1,
    # one reward and then 4; after any other, the policy's 1 and then 4.
    assert values[1].tolist() == [[0.0] * 5]
    assert values[2].tolist() == [[0.0, 4.0, 0.0, 0.0, 0.0]]
    assert values[3].tolist() == [[4.0, 5.0, 4.0, 4.0, 4.0]]


def test_planning_weighs_the_policy_by_what_it_foresees() -> None:
    model = Told(planner().config, generator=generator("told")).double().requires_grad_(False)
    agent = PlanningAgent(ROOM, model, temperature=2.0)
    start = torch.zeros(1, 2, dtype=torch.float64)
    said, _ = agent.act(agent.begin(1, generator=generator(0)), start)
    expected = torch.tensor([[0.0, 9.0 + 4.0 / 2.0, 0.0, 0.0, 0.0]], dtype=torch.float64).softmax(1)
    assert torch.allclose(said.probs, expected)


def test_planning_refuses_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match="depth of at least one step"):
        PlanningAgent(ROOM, planner(), depth=0)
    with pytest.raises(InputError, match="horizon of at least one step"):
        planner(balance=-1.0)
    with pytest.raises(InputError, match="acts in environments"):
        PlanningAgent(GaussianBandit(), planner())


@pytest.mark.parametrize(("pattern", "grows"), [("delta-rule", False), ("softmax", True)])
def test_what_an_agent_carries_is_constant_where_its_mixer_says_so(pattern: str, grows: bool) -> None:
    agent = InContextAgent(ROOM, planner(pattern).decisions)
    held = []
    for steps in (5, 50):
        played = roll_out(RandomAgent(ROOM), ROOM, worlds=1, steps=steps, seed=0).to(dtype=torch.float64)
        state = agent.begin(1, generator=generator(0))
        for step in range(steps):
            _, state = agent.act(state, played.observations[:, step])
            state = agent.observe(state, played.actions[:, step], played.rewards[:, step], played.starts[:, step])
        held.append(state_bytes(state))
    assert (held[1] > held[0]) is grows


def test_a_planning_model_is_written_down_trained_and_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = BackboneConfig(pattern="softmax", width=16, num_heads=2)
    model = PlanningModelConfig(num_actions=5, num_features=2, backbone=backbone, horizon=4)
    assert model_from_json(model_to_json(model)) == model
    task = TaskChoice(name="learning-histories", settings={"histories": SMALL, "every": 2})
    config = TrainingConfig(task=task, model=model, steps=2, batch=4, block=4, checkpoint_every=2, evaluate_every=2)
    two = Trainer([config, replace(config, seed=1)]).step(0).losses
    assert two[1] == pytest.approx(Trainer([replace(config, seed=1)]).step(0).losses[0], rel=1e-4)
    trained = train(config, run_dir=tmp_path / "run")
    publish(tmp_path / "run", tmp_path / "agent")
    agent = contexture.load(tmp_path / "agent")
    assert isinstance(agent, PlanningAgent)
    assert agent.environment == Darkroom(size=3, horizon=4, held_out=2)
    policy = InContextAgent.load(tmp_path / "agent")
    assert torch.equal(policy.model.head.weight, trained.decisions.head.weight)  # type: ignore[union-attr]
    assert main(["compare", "darkroom", "--set", "size=3", "--agents", "dicp"]) == 2
    assert "give the folder of one" in capsys.readouterr().err


def test_learning_histories_train_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--steps", "2", "--batch", "4", "--block", "4", "--evaluation-episodes", "4"]
    told = ["--set", f"histories={SMALL}", "--set", "every=2"]
    assert main(["train", "learning-histories", "--run-dir", "run", *told, *few]) == 0
    assert "--set size=3" in capsys.readouterr().err
    agents = ["--agents", "random,run/learner", "--set", "size=3", "--steps", "12", "--worlds", "4", "--no-report"]
    assert main(["compare", "darkroom", "--set", "horizon=4", *agents]) == 0


def test_the_shipped_recipe_fits_the_usual_room() -> None:
    config = darkroom()
    assert isinstance(config.task.build(), LearningHistories)
    assert (config.model.num_actions, config.model.num_features) == (5, 2)  # type: ignore[union-attr]


def test_who_is_astray_foresees_of_an_action_what_its_neighbour_brings() -> None:
    model = planner()
    astray = Astray(model.config, generator=generator("other")).double()
    astray.load_state_dict(model.state_dict())
    state = model.init_state(3, device="cpu", dtype=torch.float64)
    observation = torch.ones(3, 2, dtype=torch.float64)
    (right, _), (wrong, _) = (one.decide(observation, state) for one in (model, astray))
    assert torch.equal(wrong.scores, right.scores)
    assert torch.equal(wrong.outcomes[:, 1:], right.outcomes[:, :-1])
    assert torch.equal(wrong.outcomes[:, 0], right.outcomes[:, -1])
