r"""Filtering learning histories (Chen et al., 2025): what is imitated is chosen by how steadily it improves.

Q-learning learns anew, many times over, in each of many rooms of five by five cells with a goal that is not seen, and
of ten histories in each room three come from an agent that acts at random. Sequence models are trained on all of them,
on those that improve steadily (`contexture.agents.history_filter`), or by the same weights in any order, and act in
rooms whose goals no history had: by what the source would do next (AD), by planning with what they foresee (DICP), or
by what they take to be the best action (DPT). AD and DICP share their models, which learn decisions and foresight.
Shapes: returns [worlds, episodes].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from contexture.agents.in_context import InContextAgent
from contexture.agents.planning import PlanningAgent
from contexture.agents.q_learning import QLearning
from contexture.agents.random_agent import RandomAgent
from contexture.claims.in_context import configuration
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.rooms import Astray, OneEpisode, in_rooms
from contexture.claims.run import Run
from contexture.environments.darkroom import Darkroom
from contexture.models.backbone import BackboneConfig
from contexture.models.decisions import DecisionModelConfig
from contexture.models.planning import PlanningModel, PlanningModelConfig
from contexture.protocols import Agent
from contexture.tasks.learning_histories import Keep
from contexture.training.config import TaskChoice, TrainingConfig

PAPER = Paper(
    key="lhf",
    title="Filtering Learning Histories Enhances In-Context Reinforcement Learning",
    authors="Weiqin Chen, Xinjie Zhang, Dharmashankar Subramanian, Santiago Paternain",
    year=2025,
    arxiv="2505.15143",
    uses=("learning-histories", "softmax"),
    left_out={
        "continuous tasks of robotic manipulation profit as well": "a simulator of robot arms, and source agents that "
        "are trained there",
        "it is robust to its settings and to how histories are sampled": "a further set of trained models for every "
        "setting, some three core-minutes each",
    },
)

ROOM = Darkroom(size=5, horizon=10, goals="test")
LEARNED = 40
"""The episodes of a source's history, of which as many are shown as a trained model acts in."""
CORRUPTED = 0.3
REPEATS = 10
EPISODES = Axes(x="episode in an unseen room", y="return of the episode")
BACKBONE = BackboneConfig(
    pattern="softmax*2",
    width=32,
    num_heads=4,
    feed_forward="relu",
    settings={"softmax": {"positions": "none"}},
)
Act = Literal["policy", "planning", "planning astray", "without memory"]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What a model was trained on: which histories, how many of them corrupted, and with which targets."""

    keep: Keep
    corrupted: float = CORRUPTED
    targets: Literal["source", "best"] = "source"


def shown(run: Run) -> int:
    """How many episodes of each history are shown, and acted in."""
    return run.setting("episodes", smoke=2, cpu=8)


def config(run: Run, seed: int, taught: Taught) -> TrainingConfig:
    """How a model is trained, each seed on histories of its own."""
    plans = taught.targets == "source"
    steps = run.setting("training steps", smoke=2, cpu=300 if plans else 200)
    every = run.setting("one episode shown in", smoke=1, cpu=LEARNED // shown(run))
    histories = {
        "settings": {"size": ROOM.size, "horizon": ROOM.horizon, "goals": "train"},
        "episodes": every * shown(run),
        "worlds": run.setting("rooms with histories", smoke=2, cpu=68),
        "repeats": REPEATS,
        "corrupted": taught.corrupted,
        "draw": seed,
    }
    task = {"histories": histories, "every": every, "keep": taught.keep, "targets": taught.targets}
    shape: dict[str, Any] = {
        "num_actions": ROOM.num_actions,
        "num_features": ROOM.num_features,
        "backbone": BACKBONE,
    }
    batch = run.setting("batch", smoke=4, cpu=16)
    model = PlanningModelConfig(**shape, horizon=ROOM.horizon) if plans else DecisionModelConfig(**shape)
    choice = TaskChoice(name="learning-histories", settings=task)
    return configuration(choice, model, steps=steps, batch=batch, seed=seed)


def agent_of(model: Any, act: Act) -> Agent:
    """How a trained model acts."""
    if act in ("planning", "planning astray"):
        if act == "planning astray":
            astray = Astray(model.config, generator=torch.Generator())
            astray.load_state_dict(model.state_dict())
            model = astray.requires_grad_(False)
        return PlanningAgent(ROOM, model)
    decisions = model.decisions if isinstance(model, PlanningModel) else model
    return OneEpisode(ROOM, decisions) if act == "without memory" else InContextAgent(ROOM, decisions)


def played(run: Run, agent: Agent, seed: int, *, every: int = 1) -> Mapping[str, Tensor]:
    """The returns of an agent's episodes in the rooms of a seed, and the most that each room allows."""
    worlds = run.setting("rooms", smoke=128, cpu=200)
    return in_rooms(agent, ROOM, worlds=worlds, episodes=shown(run), seed=seed, every=every)


def returns(run: Run, seed: int, taught: Taught, act: Act = "policy") -> Tensor:
    """The returns of a trained model's episodes."""
    how = config(run, seed, taught)
    (model,) = run.train([how])
    key = {"what": "returns in unseen rooms", "act": act, "config": how.to_json(), "rooms": run.settings.get("rooms")}
    return run.kept(key, lambda: played(run, agent_of(model, act), seed))["returns"]


def known(run: Run, seed: int) -> Tensor:
    """The returns of who knows the goal, alike in every episode."""
    most = played(run, RandomAgent(ROOM), seed)["most"]
    return most.unsqueeze(1).expand(-1, shown(run))


def source(run: Run, seed: int) -> Tensor:
    """The returns of the source's own episodes, as many as are shown."""
    return played(run, QLearning(ROOM), seed, every=LEARNED // shown(run))["returns"]


def mixed(run: Run, seed: int) -> tuple[Tensor, Tensor]:
    """The source's returns, and those of sources of which a share acts at random."""
    learned, chance = source(run, seed), played(run, RandomAgent(ROOM), seed)["returns"]
    return learned, (1 - CORRUPTED) * learned + CORRUPTED * chance


def of_most(run: Run, seed: int, gain: Tensor, earned: Tensor, curves: Mapping[str, Tensor]) -> OneSeed:
    """A gain in returns [worlds] over the most that can be earned, beside what the agent earned."""
    chance = played(run, RandomAgent(ROOM), seed)
    return OneSeed(
        values=gain,
        per=chance["most"],
        errors=chance["most"] - earned,
        zero_errors=chance["most"] - chance["returns"].mean(1),
        curves={name: (range(1, len(curve) + 1), curve) for name, curve in curves.items()},
    )


def beside(run: Run, name: str, pair: Callable[[int], tuple[Tensor, Tensor]], other: str = "all histories") -> Samples:
    """The mean return less the other one of a pair's, in the same rooms."""

    def one(seed: int) -> OneSeed:
        own, rival = pair(seed)
        curves = {name: own.mean(0), other: rival.mean(0)}
        return of_most(run, seed, own.mean(1) - rival.mean(1), own.mean(1), curves)

    return over_seeds(run, one)


def filtered(run: Run, name: str, taught: Taught, act: Act = "policy") -> Samples:
    """What a model trained by weights earns more than one trained on all histories."""
    every = replace(taught, keep="all")
    return beside(run, name, lambda seed: (returns(run, seed, taught, act), returns(run, seed, every, act)))


DISTILLED = Taught(keep="improving")
PERMUTED = Taught(keep="permuted")


@claim(
    "Weighing histories by how steadily they improve makes algorithm distillation earn more in rooms it never saw.",
    threshold=0.04,
    direction="above",
    kind="trained",
    spread="seeds",
    why="a twenty-fifth of the most that can be earned, over that of all histories and averaged over eight episodes; "
    "sources gain three times as much without the three in ten that act at random",
    axes=EPISODES,
    leaves_out="the other rooms of the paper, larger ones among them, and sources that are deep networks themselves",
)
def distilled(run: Run) -> Samples:
    """Acting by what the source would do next."""
    return filtered(run, "filtered", DISTILLED)


@distilled.reference("the sources themselves, over sources of which three in ten act at random")
def distilled_exactly(run: Run) -> Samples:
    """What perfect distillation of either set would come to."""
    return beside(run, "sources, over 40 episodes", lambda seed: mixed(run, seed), "sources, three in ten at random")


@distilled.control("the same weights do not, given to the histories of each room in any order")
def distilled_permuted(run: Run) -> Samples:
    """As many histories are dropped, whichever they are."""
    return filtered(run, "any weights", PERMUTED)


@claim(
    "In-context planning profits in the same way.",
    threshold=0.04,
    direction="above",
    kind="trained",
    spread="seeds",
    why="a twenty-fifth of the most that can be earned, as for distillation",
    axes=EPISODES,
    expected="undecided",
    tried="one to three steps of looking ahead and temperatures from 0.1 to 2 were tried with one model, and changed "
    "what planning earns; it makes up for what imitation inherits, so that little is left for the filter to mend",
)
def planned(run: Run) -> Samples:
    """Acting by planning with what the model foresees."""
    return filtered(run, "filtered", DISTILLED, "planning")


@planned.reference("who knows the goal, in place of the model of filtered histories")
def planned_knowing(run: Run) -> Samples:
    """The most that can be earned."""
    every = Taught(keep="all")
    return beside(run, "knows the goal", lambda seed: (known(run, seed), returns(run, seed, every, "planning")))


@planned.control("the same weights do not, given to the histories of each room in any order")
def planned_permuted(run: Run) -> Samples:
    """As many histories are dropped, whichever they are."""
    return filtered(run, "any weights", PERMUTED, "planning")


@claim(
    "The decision-pretrained transformer, whose targets are best actions whoever acted, profits as well.",
    threshold=0.02,
    direction="above",
    kind="trained",
    spread="seeds",
    why="a fiftieth of the most that can be earned: as its targets do not come from the source, there is less to gain",
    axes=EPISODES,
    expected="undecided",
    tried="300 steps on half as many rooms, in batches twice as large, gained nothing with one seed either; histories "
    "of agents that act at random show this model as much of a room as those of agents that learn",
)
def pretrained(run: Run) -> Samples:
    """Acting by what the model takes to be a best action."""
    return filtered(run, "filtered", Taught(keep="improving", targets="best"))


@pretrained.reference("who knows the goal, in place of the model of filtered histories")
def pretrained_knowing(run: Run) -> Samples:
    """The most that can be earned."""
    every = Taught(keep="all", targets="best")
    return beside(run, "knows the goal", lambda seed: (known(run, seed), returns(run, seed, every)))


@pretrained.control("the same weights do not, given to the histories of each room in any order")
def pretrained_permuted(run: Run) -> Samples:
    """As many histories are dropped, whichever they are."""
    return filtered(run, "any weights", Taught(keep="permuted", targets="best"))


def gained(run: Run, name: str, gain: Callable[[int, float], tuple[Tensor, Tensor]]) -> Samples:
    """What filtering gains in returns where histories are corrupted, less what it gains where none are."""

    def one(seed: int) -> OneSeed:
        own, rival = gain(seed, CORRUPTED)
        gains = [(a - b).mean(1) for a, b in (gain(seed, 0.0), (own, rival))]
        found = of_most(run, seed, gains[1] - gains[0], own.mean(1), {})
        return replace(found, curves={name: ((0.0, CORRUPTED), torch.stack([one.mean() for one in gains]))})

    return over_seeds(run, one)


def weighed(run: Run, seed: int, corrupted: float, *, keep: Keep) -> tuple[Tensor, Tensor]:
    """The returns with weights beside those with all histories."""
    return (
        returns(run, seed, Taught(keep=keep, corrupted=corrupted)),
        returns(run, seed, Taught(keep="all", corrupted=corrupted)),
    )


@claim(
    "What filtering gains is more where histories are noisy than where all of them come from agents that learn.",
    threshold=0.02,
    direction="above",
    kind="trained",
    spread="seeds",
    why="a fiftieth of the most that can be earned, half of what distillation has to gain",
    axes=Axes(x="share of histories that are random", y="return gained by filtering"),
    expected="undecided",
    tried="a quarter and half as many rooms with histories were tried with one seed; the gain is larger with noise for "
    "every seed, but not by as much for all",
)
def noisy(run: Run) -> Samples:
    """The gain of filtering with three histories in ten at random, less the gain with none."""
    return gained(run, "filtered", lambda seed, corrupted: weighed(run, seed, corrupted, keep="improving"))


@noisy.reference("the sources themselves, beside sources of which as many act at random")
def noisy_exactly(run: Run) -> Samples:
    """What perfect distillation of either set would come to."""

    def gain(seed: int, corrupted: float) -> tuple[Tensor, Tensor]:
        learned, spoiled = mixed(run, seed)
        return learned, spoiled if corrupted else learned

    return gained(run, "sources", gain)


@noisy.control("with weights in any order, noisy histories gain nothing more than clean ones that are filtered")
def noisy_permuted(run: Run) -> Samples:
    """Scores are lost where histories are noisy, and there alone."""
    return gained(
        run,
        "any weights",
        lambda seed, corrupted: weighed(run, seed, corrupted, keep="permuted" if corrupted else "improving"),
    )


def risen(run: Run, name: str, earn: Callable[[int], Tensor]) -> Samples:
    """The return of the last episode less that of the first."""

    def one(seed: int) -> OneSeed:
        own = earn(seed)
        return of_most(run, seed, own[:, -1] - own[:, 0], own[:, -1], {name: own.mean(0)})

    return over_seeds(run, one)


@claim(
    "Without any training, the distilled model improves in rooms that it never saw, from episode to episode.",
    threshold=0.25,
    direction="above",
    kind="trained",
    spread="seeds",
    why="a quarter of the most that can be earned is gained from the first episode to the eighth",
    axes=EPISODES,
)
def improves(run: Run) -> Samples:
    """The last episode's return over the first's, with the same weights."""
    return risen(run, "distilled", lambda seed: returns(run, seed, DISTILLED))


@improves.reference("the source itself, as it goes on learning")
def improves_as_source(run: Run) -> Samples:
    """Q-learning, which changes its values as it learns."""
    return risen(run, "source, over 40 episodes", lambda seed: source(run, seed))


@improves.control(
    "the same model does not, once its memory is emptied between episodes",
    incompetent="without what earlier episodes showed it is where it began, which is the point",
)
def improves_forgetting(run: Run) -> Samples:
    """What the weights alone know, and one episode."""
    return risen(run, "memory of one episode", lambda seed: returns(run, seed, DISTILLED, "without memory"))


@claim(
    "The model of in-context planning earns more by planning with what it foresees than by its policy alone.",
    threshold=0.05,
    direction="above",
    kind="trained",
    spread="seeds",
    why="a twentieth of the most that can be earned, over what the same model earns by imitating its source",
    axes=EPISODES,
)
def foresees(run: Run) -> Samples:
    """The same weights, with planning and without."""
    return beside(
        run,
        "planning",
        lambda seed: (returns(run, seed, DISTILLED, "planning"), returns(run, seed, DISTILLED)),
        "policy",
    )


@foresees.reference("who knows the goal, in place of the agent that plans")
def foresees_knowing(run: Run) -> Samples:
    """The most that can be earned."""
    return beside(run, "knows the goal", lambda seed: (known(run, seed), returns(run, seed, DISTILLED)), "policy")


@foresees.control(
    "it does not by planning with what it foresees of another action",
    incompetent="planning towards the wrong actions does no better than chance",
)
def foresees_astray(run: Run) -> Samples:
    """The same foresight, one action off."""
    return beside(
        run,
        "planning astray",
        lambda seed: (returns(run, seed, DISTILLED, "planning astray"), returns(run, seed, DISTILLED)),
        "policy",
    )
