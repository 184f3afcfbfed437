r"""Transformers as decision makers (Lin, Bai & Mei 2023): what they can run by construction, and what they imitate.

By construction, with ReLU attention and weights set by hand (`contexture.models.ridge_bandits`, `.value_iteration`):
LinUCB, Thompson sampling in linear bandits and UCB-VI, held against the agents of those names on the same histories.
By training: the transformer of `contexture.models.decisions` learns from histories of an algorithm to name the best
arm of three, which an expert who knows the world does; it is held against the exact posterior.
Shapes: x [worlds, pulls, dim], r [worlds, pulls], arms [arms, dim]; scores [worlds, arms].
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contexture.agents.lin_ucb import LinUCB
from contexture.agents.linear_thompson import LinearThompson
from contexture.agents.roll_out import roll_out, states_along
from contexture.agents.ucb_vi import UCBVI, planned_values
from contexture.claims.best_arm import Says, lost, share_lost
from contexture.claims.in_context import SMOKE_STEPS, configuration
from contexture.claims.linear_bandits import (
    ARMS,
    DIM,
    TOLERANCE,
    Choose,
    Pulled,
    bounds,
    choices,
    fractions_needed,
    layers_needed,
    lin_ucb_layers,
    read,
)
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.environments.tabular_mdp import TabularMDP
from contexture.evaluation.posterior import exactly, says
from contexture.models.backbone import BackboneConfig
from contexture.models.decisions import DecisionModel, DecisionModelConfig
from contexture.models.ridge_bandits import ThompsonLayers, root_error, root_missed
from contexture.models.value_iteration import ValueIterationLayers
from contexture.protocols import Trajectories
from contexture.tasks.decision_pretraining import DecisionPretraining
from contexture.training.config import TaskChoice

PAPER = Paper(
    key="icrl-provable",
    title="Transformers as Decision Makers: Provable In-Context Reinforcement Learning via Supervised Pretraining",
    authors="Licong Lin, Yu Bai, Song Mei",
    year=2023,
    arxiv="2310.08566",
    uses=("decision-pretraining", "softmax"),
)


def by_layers(agent: LinUCB, told: Pulled, pulls: int, counts: list[int]) -> list[Tensor]:
    """The transformer's bounds."""
    return read(lin_ucb_layers(told, pulls), told, counts)


def by_plain_layers(agent: LinUCB, told: Pulled, pulls: int, counts: list[int]) -> list[Tensor]:
    """Those of a transformer whose descent is not accelerated."""
    return read(lin_ucb_layers(told, pulls, accelerated=False), told, counts)


def by_equations(agent: LinUCB, told: Pulled, pulls: int, counts: list[int]) -> list[Tensor]:
    """The bounds from the normal equations of each history."""
    return [agent.bounds(told.believed(agent))] * len(counts)


@claim(
    "A ReLU-attention transformer with weights set by hand computes LinUCB's confidence bounds in its forward pass.",
    threshold=TOLERANCE,
    direction="below",
    why="a hundredth of the bounds' size; of it the pieces of the square root may take sqrt(longest) / 800, about .002",
    axes=Axes(x="layers", y="largest error of the bounds, relative", log_y=True, rule=True),
)
def lin_ucb(run: Run) -> Samples:
    """Six arms and the weights, solved side by side by accelerated descent, an iteration a layer."""
    return bounds(run, by_layers, "accelerated")


@lin_ucb.reference("the normal equations of each history")
def lin_ucb_solved(run: Run) -> Samples:
    """The rounding between two ways of solving them."""
    return bounds(run, by_equations, "")


@lin_ucb.control("without momentum as many layers do not come close")
def lin_ucb_plain(run: Run) -> Samples:
    """Plain gradient descent in the same layers."""
    return bounds(run, by_plain_layers, "without momentum")


@claim(
    "It does so efficiently: the layers that are needed grow about as the square root of the number of pulls.",
    threshold=0.75,
    direction="below",
    why="half way, in powers, between the square root and the number of pulls itself, which plain descent needs",
    axes=Axes(x="pulls", y="layers to come within 1 %", log_x=True, log_y=True),
)
def depth(run: Run) -> Samples:
    """The bounds of three arms after 10 to 80 pulls of one of them, where iterations have the hardest time."""
    return layers_needed(run, lambda told, n, grid: read(lin_ucb_layers(told, n), told, grid), "accelerated")


@depth.reference("the same iterations on matrices, without a transformer")
def depth_on_matrices(run: Run) -> Samples:
    """The same slope."""

    def on_matrices(told: Pulled, pulls: int, counts: list[int]) -> list[Tensor]:
        return lin_ucb_layers(told, pulls).without_tokens(told.x, told.r, told.arms, iterations=counts)

    return layers_needed(run, on_matrices, "")


@depth.control("without momentum they grow as the number of pulls")
def depth_plain(run: Run) -> Samples:
    """Plain gradient descent in the same layers."""

    def plain(told: Pulled, pulls: int, counts: list[int]) -> list[Tensor]:
        return read(lin_ucb_layers(told, pulls, accelerated=False), told, counts)

    return layers_needed(run, plain, "without momentum", accelerated=False)


def thompson_layers(run: Run, *, drawn: bool = True) -> Choose:
    """What the transformer's deciding tokens say, each with a draw of its own."""
    count = run.setting("fractions", smoke=5, cpu=8)
    iterations = run.setting("layers", smoke=50, cpu=120)

    def choose(agent: LinearThompson, known: Pulled, draws: Tensor, pulls: int) -> Tensor:
        layers = ThompsonLayers(
            dim=DIM,
            num_arms=ARMS,
            largest=pulls * known.longest,
            ridge=agent.prior,
            noise=agent.environment.noise if drawn else 0.0,
            num_fractions=count,
        )
        arms = known.arms.expand(len(draws), -1, -1)
        (said,) = layers.read_outs(known.x, known.r, arms, draws, iterations=(iterations,))
        return said

    return choose


@claim(
    "Another one is Thompson sampling: of a draw in its token it makes one from the posterior, and chooses every arm "
    "as often as the agent does.",
    threshold=0.02,
    direction="below",
    why="one choice in fifty differs; what is drawn from a posterior of another shape differs more often",
    axes=Axes(x="pulls", y="share of choices that differ", log_y=True, rule=True),
)
def thompson(run: Run) -> Samples:
    """The root of the covariance from eight fractions, each an inverse by 120 iterations."""
    return choices(run, thompson_layers(run), "8 fractions")


@thompson.reference("draws from the posterior by equations solved at once")
def thompson_solved(run: Run) -> Samples:
    """The rounding between two ways of solving them."""

    def choose(agent: LinearThompson, known: Pulled, draws: Tensor, pulls: int) -> Tensor:
        return agent.drawn(known.believed(agent), draws.transpose(0, 1)).transpose(0, 1)

    return choices(run, choose, "")


@thompson.control("without the draw it takes the arm that is best on average, and chooses otherwise")
def thompson_greedy(run: Run) -> Samples:
    """The same layers, which do not use what is drawn."""
    return choices(run, thompson_layers(run, drawn=False), "without the draw")


@claim(
    "The root of a covariance costs heads that grow about as the fourth root of the number of pulls.",
    threshold=0.375,
    direction="below",
    why="half way, in powers, between the fourth root and the square root, which fractions of another scale need",
    axes=Axes(x="pulls", y="fractions to come within 1 %", log_x=True, log_y=True),
)
def heads(run: Run) -> Samples:
    """Over all that A may have for eigenvalues after 10 to 640 pulls."""
    return fractions_needed(run, root_missed, "as constructed")


@heads.reference("what theory says that so many fractions miss")
def heads_bound(run: Run) -> Samples:
    """A formula in place of the fractions."""
    return fractions_needed(run, root_error, "")


@heads.control("fractions that are scaled to the ridge alone grow as the square root")
def heads_unscaled(run: Run) -> Samples:
    """The same fractions, best near the smallest eigenvalue."""

    def unscaled(count: int, *, least: float, largest: float) -> float:
        return root_missed(count, least=least, largest=largest, scaled_to=least)

    return fractions_needed(run, unscaled, "scaled to the ridge")


PROCESS = TabularMDP(num_states=4, num_actions=2, horizon=4)


def plans(run: Run, say: Callable[[Trajectories], Tensor], name: str) -> Samples:
    """The largest error of the values that UCB-VI plans by, over all steps of its own histories."""
    episodes = run.setting("episodes", smoke=4, cpu=12)
    worlds = run.setting("worlds", smoke=2, cpu=12)

    def one(seed: int) -> OneSeed:
        agent = UCBVI(PROCESS)
        played = roll_out(agent, PROCESS, worlds=worlds, steps=episodes * PROCESS.horizon, seed=seed)
        wanted = torch.stack([state.values for state in states_along(agent, played)], 1)
        off = (say(played) - wanted).flatten(2)
        begins = range(0, played.time, PROCESS.horizon)
        found = off.abs().amax(2)
        curve = found[:, :: PROCESS.horizon].mean(0).clamp(min=1e-16)
        curves = {name: ([1 + step // PROCESS.horizon for step in begins], curve)}
        return OneSeed(
            values=found.amax(1),
            errors=off[:, -1].square().mean(1),
            zero_errors=wanted[:, -1].flatten(1).square().mean(1),
            curves=curves,
        )

    return over_seeds(run, one)


def by_value_layers(played: Trajectories, *, optimistic: bool = True) -> Tensor:
    """The transformer's values at every step, in one forward pass."""
    layers = ValueIterationLayers(
        num_states=PROCESS.num_states,
        num_actions=PROCESS.num_actions,
        horizon=PROCESS.horizon,
        num_tokens=played.time,
        width=UCBVI(PROCESS).width,
        optimistic=optimistic,
    )
    return layers.values(PROCESS.states(played.observations), played.actions, played.rewards, played.starts)


@claim(
    "A third one is UCB-VI: it plans in the model of earlier episodes at every step, in 2 layers for each step that is "
    "left and 4 more.",
    threshold=1e-8,
    direction="below",
    why="whole counts are read from tables without error, and scores of up to 1e3 cost double precision three digits",
    axes=Axes(x="episode", y="largest error of the values", log_y=True, rule=True),
)
def ucb_vi(run: Run) -> Samples:
    """Four states, two actions and four steps: twelve layers."""
    return plans(run, by_value_layers, "constructed layers")


@ucb_vi.reference("the same plans from running sums of counts")
def ucb_vi_sums(run: Run) -> Samples:
    """The rounding between two ways of counting."""
    return plans(run, lambda played: planned_values(UCBVI(PROCESS), played), "")


@ucb_vi.control("without the bonus for what was seldom tried it plans otherwise")
def ucb_vi_greedy(run: Run) -> Samples:
    """The same layers without hope."""
    return plans(run, lambda played: by_value_layers(played, optimistic=False), "without a bonus")


BANDIT = GaussianBandit(num_arms=3)
FIRST = 5
"""After how many pulls what is said counts."""


def on_histories(run: Run, behaviour: str) -> DecisionPretraining:
    """Histories of an agent, with the best arm as what the expert does."""
    steps = run.setting("history", smoke=8, cpu=40)
    return DecisionPretraining(settings={"num_arms": BANDIT.num_arms}, steps=steps, behaviour=behaviour)


def histories(run: Run, seed: int, behaviour: str) -> Trajectories:
    """Histories of an agent in worlds of its own."""
    worlds = run.setting("histories", smoke=48, cpu=1000)
    return on_histories(run, behaviour).sample(worlds, generator=run.generator(seed, "histories", behaviour))


MATCHED, OTHER = "thompson", "random"


def pretrained(run: Run, behaviour: str) -> dict[int, DecisionModel]:
    """A transformer for each seed, trained on histories of this agent to name the best arm."""
    steps = run.setting("training steps", smoke=SMOKE_STEPS, cpu=500)
    batch = run.setting("batch", smoke=8, cpu=64)
    backbone = BackboneConfig(
        pattern="softmax*2", width=32, num_heads=8, feed_forward="relu", settings={"softmax": {"positions": "none"}}
    )
    task = on_histories(run, behaviour)
    settings = {"settings": task.settings, "steps": task.steps, "behaviour": behaviour}
    choice = TaskChoice(name=task.card.name, settings=settings)
    model = DecisionModelConfig(num_actions=BANDIT.num_arms, backbone=backbone)
    models = run.train(
        [
            configuration(choice, model, steps=steps, batch=batch, seed=seed, warm_up=min(50, steps))
            for seed in run.seeds
        ]
    )
    return {seed: model for seed, model in zip(run.seeds, models, strict=True) if isinstance(model, DecisionModel)}


def transformers(run: Run, behaviour: str) -> Says:
    """Those trained on histories of this agent."""
    models = pretrained(run, behaviour)
    return lambda seed, drawn, pulls: says(models[seed], drawn)[:, list(pulls)]


def posterior(seed: int, drawn: Trajectories, pulls: Sequence[int]) -> Tensor:
    """The exact one, with its integrals taken at half as many points."""
    return exactly(drawn, BANDIT, pulls, points=50)


def flat(seed: int, drawn: Trajectories, pulls: Sequence[int]) -> Tensor:
    """What the expert does on average, whatever the history."""
    return exactly(drawn, BANDIT, pulls).mean((0, 1)).expand(drawn.batch, len(pulls), -1)


def imitation(run: Run, say: Says, name: str) -> Samples:
    """The share of the information about the expert's choice that is lost, on histories like those of training."""
    pulls = range(FIRST, on_histories(run, MATCHED).steps)
    return share_lost(run, BANDIT, lambda seed: histories(run, seed, MATCHED), say, name, pulls=pulls)


@claim(
    "Supervised pretraining imitates what the expert does on average, given the history: here, who knows the best arm.",
    threshold=0.1,
    direction="below",
    kind="trained",
    spread="seeds",
    why="nine tenths of what a history tells about the expert's choice, in nats, are kept",
    axes=Axes(x="pulls", y="share of the information lost", rule=True),
)
def imitates(run: Run) -> Samples:
    """Transformers of two layers, trained on histories of Thompson sampling."""
    return imitation(run, transformers(run, MATCHED), "transformer")


@imitates.reference("the exact posterior with its integrals taken at half as many points")
def imitates_exactly(run: Run) -> Samples:
    """What numbers leave."""
    return imitation(run, posterior, "")


@imitates.control(
    "what the expert does on average over all histories is not it",
    incompetent="it does not look at the history, which is the point",
)
def imitates_flat(run: Run) -> Samples:
    """The same for every history."""
    return imitation(run, flat, "without the history")


def mismatch(run: Run, say: Says, acting: str, names: tuple[str, str]) -> Samples:
    """Nats lost on histories of who acts, over those that transformers trained on histories of `OTHER` lose there."""
    others = transformers(run, OTHER)

    def one(seed: int) -> OneSeed:
        drawn = histories(run, seed, acting)
        pulls = range(FIRST, drawn.time)
        (own, gained), (theirs, _) = (lost(BANDIT, one, seed, drawn, pulls) for one in (say, others))
        lines = zip(names, (own, theirs), strict=True)
        return OneSeed(
            values=own.mean(1),
            per=theirs.mean(1),
            errors=own.mean(1),
            zero_errors=gained.mean(1),
            curves={line: (pulls, nats.mean(0) / gained.mean(0)) for line, nats in lines},
        )

    return over_seeds(run, one)


@claim(
    "The error grows with mismatch: where Thompson sampling acts, less is lost by who learned from its histories than "
    "by who learned from random pulls.",
    threshold=0.8,
    direction="below",
    kind="trained",
    spread="seeds",
    why="nats lost over those lost after learning from random pulls: a fifth less, with the same steps and sizes",
    axes=Axes(x="pulls", y="share of the information lost"),
    leaves_out="how the error grows with the model's capacity",
    expected="undecided",
    tried="of one seed, 300 steps came to 0.41 and 500 steps to 0.51; from seed to seed the loss of who learned from "
    "random pulls doubles, and it is the larger one only after some fifteen pulls",
)
def divergence(run: Run) -> Samples:
    """Both on histories of Thompson sampling."""
    lines = ("learned from its histories", "learned from random pulls")
    return mismatch(run, transformers(run, MATCHED), MATCHED, lines)


@divergence.reference("the exact posterior in place of who learned from its histories")
def divergence_exactly(run: Run) -> Samples:
    """Nothing but rounding is lost."""
    return mismatch(run, posterior, MATCHED, ("", ""))


@divergence.control("where pulls are random, it is the other way round")
def divergence_elsewhere(run: Run) -> Samples:
    """The same two, on histories of random pulls."""
    return mismatch(run, transformers(run, MATCHED), OTHER, ("learned from its histories, on random pulls", ""))
