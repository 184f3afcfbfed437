r"""Looped transformers are better at learning learning algorithms (Yang et al., 2023).

One transformer layer run ten times, with the prompt added at every turn (`contexture.models.looped`), against six
layers with weights of their own and against the layer used once. All are 32 wide and trained on the same prompts for as
many steps, to predict linear functions of three features, or of two of four, from seven examples. Training averages the
loss over the last four turns. Numbers are errors on the last example.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from contexture.claims.in_context import train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.learners.in_context import InContext
from contexture.models.backbone import BackboneConfig
from contexture.models.forms import Interleaved
from contexture.models.kinds import AnyConfig
from contexture.models.looped import LoopedBackbone, LoopedConfig
from contexture.models.pairs import PairsModel, PairsModelConfig
from contexture.protocols import Pairs
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.sparse_linear_regression import SparseLinearRegression

PAPER = Paper(
    key="looped-learning",
    title="Looped Transformers are Better at Learning Learning Algorithms",
    authors="Liu Yang, Kangwook Lee, Robert Nowak, Dimitris Papailiopoulos",
    year=2023,
    arxiv="2311.12424",
    uses=("linear-regression", "sparse-linear-regression", "ridge", "softmax"),
)

LOOPS, WINDOW, DEPTH, FURTHER = 10, 4, 6, 3
ALONE = "one layer, once"
LAYER = BackboneConfig(pattern="softmax", width=32, num_heads=2, expansion=2.0)
DEEP = replace(LAYER, pattern=f"softmax*{DEPTH}")
LOOPED = LoopedConfig(backbone=LAYER, loops=LOOPS, window=WINDOW)
BARE = replace(LOOPED, injection=False)
TASKS: Mapping[str, LinearRegression | SparseLinearRegression] = {
    "linear-regression": LinearRegression(num_features=3, num_points=8, noise=0.1),
    "sparse-linear-regression": SparseLinearRegression(num_features=4, num_points=8, num_nonzero=2, noise=0.1),
}
CHOSEN: Mapping[str, Mapping[str, Any]] = {
    "linear-regression": {"num_features": 3, "num_points": 8, "noise": 0.1},
    "sparse-linear-regression": {"num_features": 4, "num_points": 8, "num_nonzero": 2, "noise": 0.1},
}
BY_EXAMPLE = Axes(x="examples", y="squared error over that of zero", log_y=True)
BY_LOOP = Axes(x="loops", y="squared error over that of zero", log_y=True)


def trained(run: Run, backbone: AnyConfig, task: str) -> list[PairsModel]:
    """Models of one kind, one for each seed."""
    return train_in_context(
        run,
        backbone,
        task=task,
        settings=CHOSEN[task],
        num_features=int(CHOSEN[task]["num_features"]),
        num_steps=600,
    )


def drawn_for(run: Run, task: str, seed: int) -> Pairs:
    """Fresh prompts."""
    return run.sample(TASKS[task], run.setting("prompts", smoke=256, cpu=2000), seed=seed)


def errors(run: Run, backbone: AnyConfig | None, task: str, seed: int) -> tuple[Tensor, Tensor]:
    """Squared errors at every example and those of zero, [episodes, examples]; of the oracle without a backbone."""
    drawn = drawn_for(run, task, seed)
    oracle = TASKS[task].oracle()
    learner = InContext(trained(run, backbone, task)[run.seeds.index(seed)]) if backbone else oracle
    assert learner is not None
    said = learner.prequential(drawn).mean
    assert said is not None
    return (said - drawn.y).square(), drawn.y.square()


def gap(run: Run, backbone: AnyConfig | None, task: str, name: str) -> Samples:
    """How much of the way from the layer used once to the deep transformer's error is gone, on the last example.

    Where the deep transformer has hardly learnt more, a twentieth of the zero predictor's error stands for the way.
    """

    def one(seed: int) -> OneSeed:
        own, zero = errors(run, backbone, task, seed)
        once, deep = errors(run, LAYER, task, seed)[0], errors(run, DEEP, task, seed)[0]
        way = torch.maximum((once - deep)[:, -1].mean(), zero[:, -1].mean() / 20)
        shown = {name: own, ALONE: once, f"{DEPTH} layers": deep}
        return OneSeed(
            values=(once - own)[:, -1],
            per=way.expand(len(own)),
            errors=own[:, -1],
            zero_errors=zero[:, -1],
            curves={label: (range(zero.shape[1]), part.mean(0) / zero.mean(0)) for label, part in shown.items()},
        )

    return over_seeds(run, one)


MATCHES = "four fifths of the way from one layer's error to that of six layers"
LARGER = "the curriculum over loops, trees and networks as functions, and prompts of many features"


@claim(
    "On linear functions looping one layer gains what six layers with weights of their own gain.",
    threshold=0.8,
    direction="above",
    kind="trained",
    why=MATCHES,
    axes=BY_EXAMPLE,
    leaves_out=LARGER,
)
def linear(run: Run) -> Samples:
    """Ten loops."""
    return gap(run, LOOPED, "linear-regression", "one layer, looped")


@linear.reference("ridge regression with the penalty of the noise")
def linear_ridge(run: Run) -> Samples:
    """What can be known."""
    return gap(run, None, "linear-regression", "best possible")


@linear.control("the same layer used once gains nothing of it")
def linear_once(run: Run) -> Samples:
    """As many parameters without the loop."""
    return gap(run, LAYER, "linear-regression", ALONE)


@claim(
    "On sparse linear functions it gains as much.",
    threshold=0.8,
    direction="above",
    expected="not-held",
    tried="600 steps for each of three seeds; more were not trained",
    kind="trained",
    why=MATCHES,
    axes=BY_EXAMPLE,
    leaves_out=LARGER,
)
def sparse(run: Run) -> Samples:
    """Ten loops."""
    return gap(run, LOOPED, "sparse-linear-regression", "one layer, looped")


@sparse.reference("the posterior mean over all supports")
def sparse_posterior(run: Run) -> Samples:
    """What can be known."""
    return gap(run, None, "sparse-linear-regression", "best possible")


@sparse.control("the same layer used once gains nothing of it")
def sparse_once(run: Run) -> Samples:
    """As many parameters without the loop."""
    return gap(run, LAYER, "sparse-linear-regression", ALONE)


PAPERS = BackboneConfig(
    pattern="softmax*12",
    width=256,
    num_heads=8,
    positions="learned",
    max_length=101,
    settings={"softmax": {"positions": "none"}},
)
"""The deep transformer of the paper, with prompts of 101 tokens."""


def parameters(backbone: AnyConfig) -> int:
    """How many numbers a model over 20 features learns."""
    with torch.device("meta"):
        config = PairsModelConfig(num_features=20, backbone=backbone)
        return sum(one.numel() for one in PairsModel(config, generator=torch.Generator()).parameters())


def weighed(run: Run, backbone: AnyConfig) -> Samples:
    """A model's parameters over those of twelve layers of width 256."""
    share = parameters(backbone) / parameters(PAPERS)
    return Samples(values=torch.full((len(run.seeds), 1), share, dtype=torch.float64))


@claim(
    "At the paper's size the looped layer has less than a tenth of the parameters of twelve layers.",
    threshold=0.1,
    direction="below",
    why="the paper's own figure",
)
def fewer_parameters(run: Run) -> Samples:
    """One layer of width 256 against twelve."""
    return weighed(run, LoopedConfig(backbone=replace(PAPERS, pattern="softmax"), loops=30, window=15))


@fewer_parameters.reference("the layer used once has as many as the looped one")
def fewer_parameters_once(run: Run) -> Samples:
    """Looping costs none."""
    return weighed(run, replace(PAPERS, pattern="softmax"))


@fewer_parameters.control("two layers with weights of their own have more", incompetent="nothing is predicted here")
def fewer_parameters_two(run: Run) -> Samples:
    """One more layer."""
    return weighed(run, replace(PAPERS, pattern="softmax*2"))


@torch.no_grad()
def by_loop(model: PairsModel, drawn: Pairs) -> Tensor:
    """Squared errors on the last example after every loop, [loops, episodes]."""
    assert isinstance(model.backbone, LoopedBackbone)
    assert isinstance(model.form, Interleaved)
    tokens = model.form.tokens(model.embed, drawn.x.float(), drawn.y.float())
    hidden = model.backbone.read_outs(tokens, loops=FURTHER * LOOPS, every=2)
    said = torch.stack([model.head(one[:, -1]).squeeze(-1) for one in hidden])
    return (said.double() - drawn.y[:, -1]).square()


def beyond(run: Run, backbone: LoopedConfig | None, name: str) -> Samples:
    """The share of the error left after three times as many loops as in training; the oracle's without a backbone."""
    task = "linear-regression"
    models = trained(run, backbone, task) if backbone else []

    def one(seed: int) -> OneSeed:
        drawn = drawn_for(run, task, seed)
        zero = drawn.y[:, -1].square()
        if models:
            found = by_loop(models[run.seeds.index(seed)], drawn)
        else:
            found = errors(run, None, task, seed)[0][:, -1].expand(FURTHER * LOOPS, -1)
        curve = found.mean(1) / zero.mean()
        return OneSeed(
            values=found[-1],
            per=zero,
            errors=found[LOOPS - 1],
            zero_errors=zero,
            curves={name: (range(1, FURTHER * LOOPS + 1), curve)},
        )

    return over_seeds(run, one)


@claim(
    "It becomes an iterative algorithm: after three times as many loops as in training it still answers well.",
    threshold=0.3,
    direction="below",
    expected="undecided",
    tried="600 steps; it answers alike from ten loops to thirty, and the loop without its prompt learns nothing at all",
    kind="trained",
    why="three tenths of the zero predictor's error; one gradient step at the best rate leaves 0.36",
    axes=BY_LOOP,
)
def iterates(run: Run) -> Samples:
    """Thirty loops after training with ten."""
    return beyond(run, LOOPED, "prompt at every turn")


@iterates.reference("ridge regression with the penalty of the noise")
def iterates_ridge(run: Run) -> Samples:
    """What can be known."""
    return beyond(run, None, "ridge regression")


@iterates.control("the same loop without the prompt at every turn does not")
def iterates_bare(run: Run) -> Samples:
    """The prompt enters once, before the first turn."""
    return beyond(run, BARE, "prompt at the first turn alone")
