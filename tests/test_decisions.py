"""Agents that are trained models: tokens, streaming, training, saving, and what `compare` makes of agents."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import contexture
from contexture.agents.in_context import InContextAgent
from contexture.agents.mixed_policy import MixedPolicy
from contexture.agents.posterior_sampling import PosteriorSampling
from contexture.agents.roll_out import best_actions, roll_out
from contexture.agents.saved import holds_decisions, load_decisions, save_decisions
from contexture.cli import main
from contexture.environments.darkroom import Darkroom
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.environments.tabular_mdp import TabularMDP
from contexture.errors import CheckpointError, InputError
from contexture.evaluation.decisions import compare_agents, scored
from contexture.models.backbone import BackboneConfig
from contexture.models.decisions import DecisionModel, DecisionModelConfig
from contexture.protocols import Agent, Environment
from contexture.randomness import generator
from contexture.tasks.decision_pretraining import DecisionPretraining
from contexture.testing.agents import check_agent
from contexture.training.config import OptimiserConfig, TaskChoice, TrainingConfig
from contexture.training.loop import Trainer, train
from contexture.training.publish import publish
from contexture.training.recipes import gaussian_bandit, over_trajectories
from contexture.training.schedule import ScheduleConfig


def small(environment: Environment, pattern: str = "softmax*2") -> DecisionModel:
    backbone = BackboneConfig(pattern=pattern, width=16, num_heads=2)
    config = DecisionModelConfig(
        num_actions=environment.num_actions, num_features=environment.num_features, backbone=backbone
    )
    return DecisionModel(config, generator=generator("decisions")).double()


@pytest.mark.parametrize("environment", [GaussianBandit(num_arms=3), Darkroom(size=3, horizon=4)])
@pytest.mark.parametrize("pattern", ["softmax*2", "delta-rule softmax", "linear-attention"])
def test_deciding_step_by_step_is_reading_the_whole_history(environment: Environment, pattern: str) -> None:
    model = small(environment, pattern)
    played = roll_out(MixedPolicy(environment), environment, worlds=3, steps=9, seed=0).to(dtype=torch.float64)
    whole = model(played.observations, played.actions, played.rewards, played.starts)
    state = model.init_state(3, device="cpu", dtype=torch.float64)
    for step in range(9):
        scores, state = model.decide(played.observations[:, step], state)
        assert torch.allclose(scores, whole[:, step], atol=1e-10)
        if step < 8:
            done = played.starts[:, step + 1]
            state = model.observe(state, played.actions[:, step], played.rewards[:, step], done)


def test_a_step_sees_nothing_of_itself_or_later() -> None:
    room = Darkroom(size=3, horizon=4)
    model = small(room)
    played = roll_out(MixedPolicy(room), room, worlds=2, steps=8, seed=1).to(dtype=torch.float64)
    before = model(played.observations, played.actions, played.rewards, played.starts)
    actions, rewards, observations = played.actions.clone(), played.rewards.clone(), played.observations.clone()
    actions[:, 5:] = (actions[:, 5:] + 1) % 5
    rewards[:, 5:] += 1
    observations[:, 6:] += 1
    after = model(observations, actions, rewards, played.starts)
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("environment", [GaussianBandit(), TabularMDP(horizon=3)])
def test_an_agent_of_any_weights_keeps_the_laws_but_competence(environment: Environment) -> None:
    agent = InContextAgent(environment, small(environment))
    for law in ("distribution", "history", "order", "values", "worlds", "own generator"):
        check_agent(agent, laws=(law,))


def test_an_agent_refuses_an_environment_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"chooses among 5 actions by 0 features, and 'darkroom' has 5 and 2"):
        InContextAgent(Darkroom(), small(GaussianBandit()))


def test_surely_takes_the_highest_score() -> None:
    bandit = GaussianBandit()
    model = small(bandit)
    state = model.init_state(2, device="cpu", dtype=torch.float64)
    empty = torch.zeros(2, 0)
    scores, _ = model.decide(empty, state)
    said, _ = InContextAgent(bandit, model, surely=True).act(state, empty)
    assert torch.equal(said.probs.argmax(1), scores.argmax(1))
    assert said.probs.amax(1).tolist() == [1.0, 1.0]


def test_the_posterior_of_two_arms_by_hand() -> None:
    agent = PosteriorSampling(GaussianBandit(num_arms=2, noise=1.0), points=2000)
    # Nothing known of either: one half. One arm sure to be at 0.25, the other flat on [0, 1]: worse with 1/4.
    pulls = torch.tensor([[0.0, 0.0], [1e6, 0.0]], dtype=torch.float64)
    sums = torch.tensor([[0.0, 0.0], [0.25e6, 0.0]], dtype=torch.float64)
    said = agent.probabilities(pulls, sums)
    assert torch.allclose(said, torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64), atol=1e-3)


def test_targets_of_histories_are_best_arms_and_lengths_are_mixed() -> None:
    task = DecisionPretraining(settings={"num_arms": 3}, steps=30, shortest=5)
    lengths = set()
    for draw in range(12):
        drawn = task.sample(4, generator=generator(draw))
        assert drawn.targets is not None
        assert torch.equal(drawn.targets[:, 0], drawn.latents["means"].argmax(1))
        assert bool((drawn.targets == drawn.targets[:, :1]).all())
        lengths.add(drawn.time)
    assert len(lengths) > 4
    assert min(lengths) >= 5
    assert max(lengths) <= 30
    copied = DecisionPretraining(targets="behaviour", steps=6).sample(2, generator=generator(0))
    assert torch.equal(copied.actions, copied.targets)


def test_histories_of_a_named_agent_are_its_own() -> None:
    task = DecisionPretraining(settings={"num_arms": 3}, steps=40, behaviour="thompson")
    learned, ignorant = (one.sample(64, generator=generator(0)) for one in (task, replace(task, behaviour="random")))
    for drawn in (learned, ignorant):
        assert drawn.targets is not None
        assert torch.equal(drawn.targets, drawn.latents["means"].argmax(1, keepdim=True).expand(64, 40))
    assert learned.regret is not None
    assert ignorant.regret is not None
    assert learned.regret[:, 20:].mean() < ignorant.regret[:, 20:].mean() / 2


def test_targets_in_a_room_lead_to_the_goal() -> None:
    task = DecisionPretraining(environment="darkroom", settings={"size": 3, "horizon": 4}, steps=8)
    drawn = task.sample(16, generator=generator(0))
    assert drawn.targets is not None
    room = Darkroom(size=3, horizon=4)
    world = room.begin(16, generator=generator(1))._replace(goal=drawn.latents["goal"])
    assert bool(best_actions(room, world).gather(1, drawn.targets[:, :1]).all())  # the first step is from the centre


def test_training_on_histories_lowers_the_loss_and_a_cohort_is_its_members() -> None:
    settings = {"settings": {"num_arms": 2, "noise": 0.05}, "steps": 12}
    backbone = BackboneConfig(pattern="softmax", width=16, num_heads=4)
    config = TrainingConfig(
        task=TaskChoice(name="decision-pretraining", settings=settings),
        model=DecisionModelConfig(num_actions=2, backbone=backbone),
        optimiser=OptimiserConfig(name="muon", rate=5e-3),
        schedule=ScheduleConfig(warm_up=1),
        steps=40,
        batch=32,
        block=32,
    )
    both = Trainer([config, replace(config, seed=1)])
    alone = Trainer([replace(config, seed=1)])
    first = both.step(0).losses
    assert first[1] == pytest.approx(alone.step(0).losses[0], rel=1e-4)
    for step in range(1, 40):
        last = both.step(step).losses
    assert max(last) < 0.66  # a guess costs 0.693


def test_a_run_becomes_an_agent_that_loads(tmp_path: Path) -> None:
    config = replace(gaussian_bandit(), steps=2, batch=4, block=4, checkpoint_every=2, evaluate_every=2)
    model = train(config, run_dir=tmp_path / "run")
    publish(tmp_path / "run", tmp_path / "agent")
    agent = contexture.load(tmp_path / "agent")
    assert isinstance(agent, InContextAgent)
    assert agent.environment == GaussianBandit()
    for name, value in model.state_dict().items():
        assert torch.equal(value, agent.model.state_dict()[name])


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    from contexture.store.checkpoint import write_checkpoint

    write_checkpoint(tmp_path / "other", step=0, tensors={"model": {"a": torch.zeros(1)}}, state={"learner": "x"})
    assert not holds_decisions(tmp_path / "other")
    with pytest.raises(CheckpointError, match="holds no trained agent"):
        load_decisions(tmp_path / "other")
    unknown = {"name": "nowhere", "settings": {}}
    save_decisions(tmp_path / "a", small(GaussianBandit()).float(), task="t", environment=unknown, step=0, record={})
    with pytest.raises(CheckpointError, match="does not fit this program: no environment is named 'nowhere'"):
        load_decisions(tmp_path / "a")


def test_a_modest_run_fits_the_environment_of_its_task() -> None:
    room = {"environment": "darkroom", "settings": {"size": 3}, "steps": 8}
    config = over_trajectories(TaskChoice(name="decision-pretraining", settings=room))
    assert isinstance(config.model, DecisionModelConfig)
    assert (config.model.num_actions, config.model.num_features) == (5, 2)


def test_sizes_are_spread_evenly_and_bad_ones_refused() -> None:
    assert scored(None, 200) == tuple(range(4, 201, 4))
    assert scored(None, 3) == (1, 2, 3)
    assert scored((50, 10), 60) == (10, 50)
    for context in ((0,), (61,), ()):
        with pytest.raises(InputError):
            scored(context, 60)
    with pytest.raises(InputError, match="--steps"):
        scored(None, 0)


class Broken(MixedPolicy):
    def act(self, state: object, observation: object) -> object:  # type: ignore[override]
        raise RuntimeError("lost the thread")


def test_regret_is_counted_world_by_world_and_a_fault_costs_nobody_else() -> None:
    bandit = GaussianBandit(num_arms=2)
    agents: dict[str, Agent] = {"mixed": MixedPolicy(bandit), "broken": Broken(bandit)}
    found = compare_agents(bandit, agents, steps=8, context=(3, 8), worlds=5, seeds=(0, 1))
    played = [roll_out(MixedPolicy(bandit), bandit, worlds=5, steps=8, seed=seed).regret for seed in (0, 1)]
    regret = torch.stack([one for one in played if one is not None])
    assert found.of("mixed").value == pytest.approx((float(regret[..., :3].sum(2).mean()), float(regret.sum(2).mean())))
    assert found.counted == "pulls"
    assert "lost the thread" in found.skipped["broken"]


def test_returns_are_summed_by_episode() -> None:
    room = Darkroom(size=3, horizon=4)
    found = compare_agents(room, {"mixed": MixedPolicy(room)}, steps=10, worlds=6, seeds=(0,))
    played = roll_out(MixedPolicy(room), room, worlds=6, steps=10, seed=0)
    assert found.context == (1, 2)  # the third episode is not whole
    assert found.of("mixed").value[1] == pytest.approx(float(played.rewards[:, 4:8].sum(1).mean()))


OWN = """
from contexture.agents.random_agent import RandomAgent
from contexture.environments.gaussian_bandit import GaussianBandit
from dataclasses import replace


class MyAgent(RandomAgent):
    card = replace(RandomAgent.card, name="mine")


class MyBandit(GaussianBandit):
    card = replace(GaussianBandit.card, name="my-bandit")
"""


def test_the_command_compares_a_users_own_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN, encoding="utf-8")
    few = ["--steps", "6", "--worlds", "4", "--seeds", "2"]
    figure = ["--figure", "curve.svg", "--report", "r.html"]
    assert main(["compare", "bandit", "--agents", "ucb,mine.py:MyAgent", "--json", *few, *figure]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["learners"]] == ["ucb", "mine.py:MyAgent"]
    assert "cumulative regret" in (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert "pulls" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert main(["compare", "mine.py:MyBandit", "--agents", "thompson", "--no-report", *few]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bandit", "--agents", "thomson"], "did you mean thompson"),
        (["bandit", "--learners", "ols"], "--learners cannot be used"),
        (["iris", "--agents", "ucb"], "--agents go with an environment"),
        (["darkroom", "--agents", "ucb"], "acts in environments of the kind"),
        (["bandit", "--context", "500"], "1 to 200"),
        (["bandit", "--set", "arms=3"], "has no setting arms"),
        (["bandit", "--metric", "log-loss"], "scored by cumulative-regret or return"),
        (["decision-pretraining"], "what agents are trained on"),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words, "--no-report"]) == 2
    found = capsys.readouterr().err.strip()
    assert said in found
    assert "\n" not in found


def test_environments_and_agents_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for what, name in (("environments", "gaussian-bandit"), ("agents", "thompson")):
        assert main(["list", what, "--json"]) == 0
        assert name in {row["name"] for row in json.loads(capsys.readouterr().out)}
