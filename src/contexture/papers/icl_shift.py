r"""A closer look at in-context learning under distribution shifts (Ahuja and Lopez-Paz 2023).

A transformer and a perceptron over the set of examples (`contexture.models.set_mlp`), as many parameters each, trained
alike on x ~ N(0, I), w ~ N(0, I), y = <w, x>. They are then asked about prompts whose inputs or weights have another
mean m (1, .., 1): one standard deviation away is a mild shift, four are the tail of what they were trained on.

    error = sum (said - y)^2 / sum (mean of the labels so far - y)^2,   after two to three examples a feature

is what is left of the labels' spread: 1 for who learns nothing about x, 0 for least squares.
Shapes: x [episodes, examples, features], y [episodes, examples].
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from contexture.claims.in_context import Predict, predicts, said_by, small_backbone, train_over_pairs
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.running_sums import one_step
from contexture.learners.classical.mean import Mean
from contexture.learners.classical.ols import OLS
from contexture.models.pairs import PairsModelConfig
from contexture.models.set_mlp import SetMLPConfig
from contexture.protocols import Pairs
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.shuffled_labels import shuffle_labels
from contexture.training.config import TaskChoice

PAPER = Paper(
    key="icl-shift",
    title="A Closer Look at In-Context Learning under Distribution Shifts",
    authors="Kartik Ahuja, David Lopez-Paz",
    year=2023,
    arxiv="2305.16704",
    uses=("linear-regression", "ols", "mean", "softmax"),
)

FEATURES, POINTS, STEPS = 4, 13, 1000
SETTINGS: dict[str, Any] = {"num_features": FEATURES, "num_points": POINTS, "noise": 0.0}
TASK = LinearRegression(**SETTINGS)
TRANSFORMER = PairsModelConfig(
    num_features=FEATURES,
    backbone=small_backbone(POINTS),
)
SET = SetMLPConfig(num_features=FEATURES, width=96)
LATE = slice(2 * FEATURES, POINTS)
"""The predictions that have seen at least two examples a feature."""
MILD, SEVERE = 1.0, 4.0
MEANS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
Shift = Callable[[Pairs, float], Pairs]


def trained(run: Run, model: PairsModelConfig | SetMLPConfig, *, seed_offset: int = 0) -> list[Predict]:
    """What each seed's model says."""
    choice = TaskChoice(name=TASK.card.name, settings=SETTINGS)
    models = train_over_pairs(run, model, task=choice, num_steps=STEPS, seed_offset=seed_offset)
    return [predicts(model) for model in models]


def least_squares(run: Run) -> list[Predict]:
    """The shortest weights that fit, for every seed."""
    return [said_by(OLS())] * len(run.seeds)


def trivial(drawn: Pairs) -> Tensor:
    """Squared errors of the mean of the labels so far."""
    return (said_by(Mean())(drawn) - drawn.y).square()


def covariates(drawn: Pairs, mean: float) -> Pairs:
    """The same prompts with inputs around another mean."""
    x = drawn.x + mean
    return replace(drawn, x=x, y=(x @ drawn.latents["weights"].unsqueeze(-1)).squeeze(-1), clean=None)


def tasks(drawn: Pairs, mean: float) -> Pairs:
    """The same prompts with weights around another mean."""
    weights = drawn.latents["weights"] + mean
    return replace(drawn, y=(drawn.x @ weights.unsqueeze(-1)).squeeze(-1), clean=None)


def left(say: Predict, drawn: Pairs) -> Tensor:
    """The mean error over the mean trivial one, at late predictions."""
    return (say(drawn) - drawn.y)[:, LATE].square().mean() / trivial(drawn)[:, LATE].mean()


def learns(run: Run, learners: Sequence[Predict], name: str, *, shuffled: bool = False) -> Samples:
    """Late errors per trivial ones, on prompts like those of training or with the labels in another order."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(TASK, episodes, seed=seed)
        if shuffled:
            drawn = shuffle_labels(drawn, generator=run.generator(seed, "shuffle"))
        found, zero = (learners[run.seeds.index(seed)](drawn) - drawn.y).square(), trivial(drawn)
        return OneSeed(
            values=found[:, LATE].mean(1),
            per=zero[:, LATE].mean(1),
            errors=found[:, LATE].mean(1),
            zero_errors=zero[:, LATE].mean(1),
            curves={name: (range(1, POINTS), (found.mean(0) / zero.mean(0))[1:])},
        )

    return over_seeds(run, one)


BY_EXAMPLES = Axes(x="examples", y="error, of the labels' spread")
LITTLE = "a quarter of the labels' spread; to one who learns nothing of x all of it is left"
NOTHING = "that labels tell nothing once they are shuffled is the point"
FITTED = "least squares"
IDEAL = "least squares on the same prompts"


@claim(
    "A transformer learns linear functions in context.",
    threshold=0.25,
    direction="below",
    why=LITTLE,
    kind="trained",
    axes=BY_EXAMPLES,
)
def transformer_learns(run: Run) -> Samples:
    """On prompts like those of training."""
    return learns(run, trained(run, TRANSFORMER), "transformer")


@transformer_learns.reference(IDEAL)
def transformer_learns_fitted(run: Run) -> Samples:
    """Exact once there are as many examples as features."""
    return learns(run, least_squares(run), FITTED)


@transformer_learns.control("not where the labels of a prompt are shuffled", incompetent=NOTHING)
def transformer_learns_shuffled(run: Run) -> Samples:
    """The same transformer, the same inputs and labels."""
    return learns(run, trained(run, TRANSFORMER), "transformer, shuffled labels", shuffled=True)


@claim(
    "A perceptron over the set of examples, which has no attention, learns them in context as well.",
    threshold=0.25,
    direction="below",
    why=LITTLE,
    kind="trained",
    axes=BY_EXAMPLES,
)
def set_learns(run: Run) -> Samples:
    """On prompts like those of training."""
    return learns(run, trained(run, SET), "set perceptron")


@set_learns.reference(IDEAL)
def set_learns_fitted(run: Run) -> Samples:
    """Exact once there are as many examples as features."""
    return learns(run, least_squares(run), FITTED)


@set_learns.control("not where the labels of a prompt are shuffled", incompetent=NOTHING)
def set_learns_shuffled(run: Run) -> Samples:
    """The same perceptron, the same inputs and labels."""
    return learns(run, trained(run, SET), "set perceptron, shuffled labels", shuffled=True)


def from_least_squares(run: Run, learners: Sequence[Predict], name: str) -> Samples:
    """Late squared differences from least squares, per those of the set perceptron."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)
    others = trained(run, SET)

    def one(seed: int) -> OneSeed:
        drawn, index = run.sample(TASK, episodes, seed=seed), run.seeds.index(seed)
        said, fitted = learners[index](drawn), said_by(OLS())(drawn)
        gaps = {name: (said - fitted).square(), "set perceptron": (others[index](drawn) - fitted).square()}
        size = fitted[:, 1:].square().mean(0)
        return OneSeed(
            values=gaps[name][:, LATE].mean(1),
            per=gaps["set perceptron"][:, LATE].mean(1),
            errors=(said - drawn.y)[:, LATE].square().mean(1),
            zero_errors=trivial(drawn)[:, LATE].mean(1),
            curves={line: (range(1, POINTS), gap[:, 1:].mean(0) / size) for line, gap in gaps.items() if line},
        )

    return over_seeds(run, one)


ALIKE = "another set perceptron, trained alike from other weights on other prompts"


@claim(
    "The transformer is closer to ordinary least squares than the set perceptron is.",
    threshold=0.5,
    direction="below",
    why="half of the set perceptron's squared difference from it, at as many parameters, steps and prompts",
    kind="trained",
    axes=Axes(x="examples", y="squared difference from least squares", log_y=True),
)
def closer(run: Run) -> Samples:
    """After eight to twelve examples of four features."""
    return from_least_squares(run, trained(run, TRANSFORMER), "transformer")


@closer.reference("least squares itself, on the same prompts")
def closer_fitted(run: Run) -> Samples:
    """No difference at all."""
    return from_least_squares(run, least_squares(run), "")


@closer.control(f"{ALIKE}, is not")
def closer_alike(run: Run) -> Samples:
    """What chance alone does to the ratio."""
    return from_least_squares(run, trained(run, SET, seed_offset=100), "another set perceptron")


def beside_set(run: Run, learners: Sequence[Predict], shift: Shift, name: str) -> Samples:
    """Late errors under a mild shift, per those of the set perceptron under the same shift."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)
    others = trained(run, SET)

    def one(seed: int) -> OneSeed:
        drawn, index = run.sample(TASK, episodes, seed=seed), run.seeds.index(seed)
        moved = shift(drawn, MILD)
        lines = {name: learners[index], "set perceptron": others[index]}
        ours, theirs = ((say(moved) - moved.y)[:, LATE].square().mean(1) for say in lines.values())
        return OneSeed(
            values=ours,
            per=theirs,
            errors=ours,
            zero_errors=trivial(moved)[:, LATE].mean(1),
            curves={line: by_mean(say, drawn, shift) for line, say in lines.items() if line},
        )

    return over_seeds(run, one)


def by_mean(say: Predict, drawn: Pairs, shift: Shift) -> tuple[Sequence[float], Tensor]:
    """What is left of the labels' spread at every mean."""
    return MEANS, torch.stack([left(say, shift(drawn, mean)) for mean in MEANS])


BY_MEAN = Axes(x="mean of the shifted law, in standard deviations", y="error, of the labels' spread", log_y=True)
LESS = "a quarter less than the set perceptron's error under the same shift; as good as it would be 1"
GROWTH = "how much of the error a shift adds: in units of its own error without a shift, the transformer loses more"


@claim(
    "Under a mild shift of the inputs the transformer errs less than the set perceptron.",
    threshold=0.75,
    direction="below",
    why=LESS,
    kind="trained",
    axes=BY_MEAN,
    leaves_out=GROWTH,
)
def mild_inputs(run: Run) -> Samples:
    """Every input's mean is moved by one standard deviation."""
    return beside_set(run, trained(run, TRANSFORMER), covariates, "transformer")


@mild_inputs.reference(IDEAL)
def mild_inputs_fitted(run: Run) -> Samples:
    """A shift is nothing to it."""
    return beside_set(run, least_squares(run), covariates, "")


@mild_inputs.control(ALIKE)
def mild_inputs_alike(run: Run) -> Samples:
    """What chance alone does to the ratio."""
    return beside_set(run, trained(run, SET, seed_offset=100), covariates, "another set perceptron")


@claim(
    "Under a mild shift of the tasks the transformer errs less than the set perceptron.",
    threshold=0.75,
    direction="below",
    why=LESS,
    kind="trained",
    axes=BY_MEAN,
    leaves_out=GROWTH,
)
def mild_tasks(run: Run) -> Samples:
    """Every weight's mean is moved by one standard deviation."""
    return beside_set(run, trained(run, TRANSFORMER), tasks, "transformer")


@mild_tasks.reference(IDEAL)
def mild_tasks_fitted(run: Run) -> Samples:
    """A shift is nothing to it."""
    return beside_set(run, least_squares(run), tasks, "")


@mild_tasks.control(ALIKE)
def mild_tasks_alike(run: Run) -> Samples:
    """What chance alone does to the ratio."""
    return beside_set(run, trained(run, SET, seed_offset=100), tasks, "another set perceptron")


def fails(run: Run, learners: Sequence[Predict], shift: Shift, name: str) -> Samples:
    """Late errors per trivial ones under a severe shift."""
    episodes = run.setting("episodes", smoke=96, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn, say = run.sample(TASK, episodes, seed=seed), learners[run.seeds.index(seed)]
        moved = shift(drawn, SEVERE)
        found, zero = ((each[:, LATE]).mean(1) for each in ((say(moved) - moved.y).square(), trivial(moved)))
        curves = {name: by_mean(say, drawn, shift)} if name else {}
        return OneSeed(values=found, per=zero, errors=found, zero_errors=zero, curves=curves)

    return over_seeds(run, one)


MUCH = "half of the labels' spread is left; unshifted, it is a tenth or less"
TAIL = Axes(x=BY_MEAN.x, y=BY_MEAN.y, log_y=True, rule=True)
BLIND = "a gradient step at the rate that was right in training, which a shift makes wrong"


@claim(
    "A severe shift of the inputs leaves little of what the transformer can learn in context.",
    threshold=0.5,
    direction="above",
    why=MUCH,
    kind="trained",
    axes=TAIL,
)
def severe_inputs(run: Run) -> Samples:
    """Every input's mean is moved by four standard deviations."""
    return fails(run, trained(run, TRANSFORMER), covariates, "transformer")


@severe_inputs.reference(BLIND)
def severe_inputs_step(run: Run) -> Samples:
    """An algorithm that fits the inputs of training alone."""
    return fails(run, [one_step(noise=0.0)] * len(run.seeds), covariates, "one gradient step")


@severe_inputs.control("least squares, which knows of no law of training, learns as ever")
def severe_inputs_fitted(run: Run) -> Samples:
    """It has the prompt alone to go by."""
    return fails(run, least_squares(run), covariates, "")


@claim(
    "The same shift leaves little of what the set perceptron can learn, too.",
    threshold=0.5,
    direction="above",
    why=MUCH,
    kind="trained",
    axes=TAIL,
)
def severe_inputs_set(run: Run) -> Samples:
    """Every input's mean is moved by four standard deviations."""
    return fails(run, trained(run, SET), covariates, "set perceptron")


@severe_inputs_set.reference(BLIND)
def severe_inputs_set_step(run: Run) -> Samples:
    """An algorithm that fits the inputs of training alone."""
    return fails(run, [one_step(noise=0.0)] * len(run.seeds), covariates, "one gradient step")


@severe_inputs_set.control("least squares, which knows of no law of training, learns as ever")
def severe_inputs_set_fitted(run: Run) -> Samples:
    """It has the prompt alone to go by."""
    return fails(run, least_squares(run), covariates, "")


@claim(
    "A severe shift of the tasks leaves little of what the transformer can learn.",
    threshold=0.5,
    direction="above",
    why=MUCH,
    expected="not-held",
    tried="with one seed, four standard deviations of the weights left a quarter of the spread, and of the set "
    "perceptron's a half: an error ten times that of training, with much still learnt",
    kind="trained",
    axes=TAIL,
)
def severe_tasks(run: Run) -> Samples:
    """Every weight's mean is moved by four standard deviations."""
    return fails(run, trained(run, TRANSFORMER), tasks, "transformer")


@severe_tasks.reference("the mean of the labels so far")
def severe_tasks_trivial(run: Run) -> Samples:
    """Who learns nothing of x."""
    return fails(run, [said_by(Mean())] * len(run.seeds), tasks, "mean of the labels")


@severe_tasks.control("least squares, which knows of no law of training, learns as ever")
def severe_tasks_fitted(run: Run) -> Samples:
    """It has the prompt alone to go by."""
    return fails(run, least_squares(run), tasks, "")
