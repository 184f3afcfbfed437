r"""In-context learning through the Bayesian prism (Panwar, Ahuja, Goyal 2023).

Small transformers beside the posterior mean E[y | x, examples] under the distribution that they were trained on:

    linear         y = w.x,  w ~ N(0, I_2)                                              ridge regression
    two centres    w ~ N((2, 0), I) or N((-2, 0), I), either equally likely             two ridges, by their evidence
    Fourier        y = a_0 + sum_{n=1,2} a_n cos n x + b_n sin n x,  all ~ N(0, 1)      ridge regression on the columns
    simple first   half of the prompts without the terms of n = 2                       two of these, by their evidence

all with noise 0.5. What a transformer takes a function for is asked over a period and cut into its frequencies: after
two examples hundreds of functions fit, and the preference among them is the inductive bias.
Shapes: x [episodes, time, features], y [episodes, time]; energies [episodes, frequencies].
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from contexture.claims.beside import each, gap
from contexture.claims.in_context import Predict, said_by, small_backbone, train_in_context
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.running_sums import solved
from contexture.learners.in_context import InContext
from contexture.models.pairs import PairsModel
from contexture.protocols import Learner, Pairs, Task
from contexture.tasks.fourier_series import FourierSeries
from contexture.tasks.gaussian_mixture_regression import GaussianMixtureRegression
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.mixture import Mixture

PAPER = Paper(
    key="bayesian-prism",
    title="In-Context Learning through the Bayesian Prism",
    authors="Madhur Panwar, Kabir Ahuja, Navin Goyal",
    year=2023,
    arxiv="2306.04891",
    uses=("linear-regression", "gaussian-mixture-regression", "fourier-series", "mixture", "bayes-ridge", "softmax"),
)

NOISE = 0.5
PLANE: dict[str, Any] = {"num_features": 2, "num_points": 8, "noise": NOISE}
CENTRES: dict[str, Any] = PLANE | {"centre": 2.0}
LINEAR, TWO_CENTRES = LinearRegression(**PLANE), GaussianMixtureRegression(**CENTRES)


def series(num_frequencies: int) -> dict[str, Any]:
    """Settings of Fourier series over a period of 2 pi."""
    return {"num_frequencies": num_frequencies, "half_period": math.pi, "num_points": 12, "noise": NOISE}


FOURIER = FourierSeries(**series(2))
BY_COMPLEXITY: dict[str, Any] = {
    "tasks": [{"name": FourierSeries.card.name, "settings": series(n)} for n in (1, 2)],
    "shares": [0.5, 0.5],
}
SIMPLE_FIRST = Mixture(**BY_COMPLEXITY)


def optimum(task: Task) -> Learner:
    """The posterior mean."""
    oracle = task.oracle()
    assert isinstance(oracle, Learner)
    return oracle


def trained(run: Run, task: Task, settings: dict[str, Any], *, depth: int = 3) -> list[PairsModel]:
    """A transformer for each seed."""
    fourier = task.card.name not in (LINEAR.card.name, TWO_CENTRES.card.name)
    return train_in_context(
        run,
        small_backbone(12 if fourier else 8, depth=depth),
        task=task.card.name,
        settings=settings,
        num_features=1 if fourier else 2,
        num_steps=1000 if fourier else 600,
    )


def near(run: Run, said: Sequence[Predict], task: Task, name: str = "") -> Samples:
    """The squared difference from the posterior mean over its own square, after one example and more."""
    episodes = run.setting("episodes", smoke=256, cpu=4096)
    return gap(run, lambda seed: run.sample(task, episodes, seed=seed), said, said_by(optimum(task)), name=name)


def columns(x: Tensor) -> Tensor:
    """The Fourier columns of one input."""
    return FOURIER.features(x)


def around_centres(drawn: Pairs) -> Tensor:
    """Ridge regression around both centres, weighed by the likelihood of all examples at once."""
    said, centre = [], torch.tensor([CENTRES["centre"], 0.0], dtype=torch.float64)
    for t in range(drawn.time):
        x, y, query = drawn.x[:, :t], drawn.y[:, :t], drawn.x[:, t]
        covariance = x @ x.mT + NOISE**2 * torch.eye(t, dtype=x.dtype)
        means, scores = [], []
        for sign in (1, -1):
            left = (y - sign * x @ centre).unsqueeze(-1)
            solution = torch.linalg.solve(covariance, left)
            means.append((query * (sign * centre + (x.mT @ solution).squeeze(-1))).sum(-1))
            scores.append(-(left * solution).sum((1, 2)) / 2)
        said.append((torch.stack(scores).softmax(0) * torch.stack(means)).sum(0))
    return torch.stack(said, 1)


RELATIVE = Axes(x="examples seen", y="squared difference from the posterior mean, relative", log_y=True, rule=True)


@claim(
    "On linear functions a trained transformer predicts as the posterior mean does.",
    threshold=0.1,
    direction="below",
    why="a tenth of the mean's own square: a correlation of .95",
    kind="trained",
    spread="seeds",
    axes=RELATIVE,
)
def linear(run: Run) -> Samples:
    """Two features, seven examples."""
    return near(run, each(trained(run, LINEAR, PLANE)), LINEAR, "trained on linear functions")


@linear.reference("ridge regression from running sums")
def linear_sums(run: Run) -> Samples:
    """The posterior mean, computed otherwise."""
    return near(run, [solved(NOISE**2)], LINEAR)


@linear.control("the same transformer does not, if it was trained on functions around two centres")
def linear_two_centres(run: Run) -> Samples:
    """The same budget and functions of the same form, under another prior."""
    return near(run, each(trained(run, TWO_CENTRES, CENTRES)), LINEAR, "trained around two centres")


@claim(
    "On functions that are not linear, Fourier series, a trained transformer predicts as the posterior mean does.",
    threshold=0.2,
    direction="below",
    why="a fifth of the mean's own square: a correlation of .9",
    kind="trained",
    spread="seeds",
    axes=RELATIVE,
    leaves_out="ten frequencies and forty examples, monomials, Haar wavelets and networks, in models of 12 layers",
)
def nonlinear(run: Run) -> Samples:
    """Two frequencies, eleven examples."""
    return near(run, each(trained(run, FOURIER, series(2))), FOURIER, "three layers")


@nonlinear.reference("ridge regression on the Fourier columns, from running sums")
def nonlinear_sums(run: Run) -> Samples:
    """The posterior mean, computed otherwise."""
    return near(run, [solved(NOISE**2, columns)], FOURIER)


@nonlinear.control("a single layer, trained alike, does not")
def nonlinear_shallow(run: Run) -> Samples:
    """The same width at a third of the depth."""
    return near(run, each(trained(run, FOURIER, series(2), depth=1)), FOURIER, "one layer")


@claim(
    "It learns several kinds of functions at once, again as the posterior mean does, which weighs them by evidence.",
    threshold=0.1,
    direction="below",
    why="a tenth of the mean's own square: a correlation of .95",
    kind="trained",
    spread="seeds",
    axes=RELATIVE,
)
def mixture(run: Run) -> Samples:
    """Functions around two centres."""
    return near(run, each(trained(run, TWO_CENTRES, CENTRES)), TWO_CENTRES, "trained around two centres")


@mixture.reference("two ridge regressions, weighed by the likelihood of all examples at once")
def mixture_at_once(run: Run) -> Samples:
    """The posterior mean, computed otherwise."""
    return near(run, [around_centres], TWO_CENTRES)


@mixture.control("the same transformer does not, if it was trained on linear functions around zero")
def mixture_one(run: Run) -> Samples:
    """The same budget and functions of the same form, under another prior."""
    return near(run, each(trained(run, LINEAR, PLANE)), TWO_CENTRES, "trained around zero")


GRID = 32
FEW = 2
"""After so many examples functions of five weights are hardly pinned down."""


def energies(learner: Learner, drawn: Pairs, shown: int) -> Tensor:
    """a_n^2 + b_n^2 of what a learner takes the function for, over a period."""
    grid = torch.linspace(-math.pi, math.pi, GRID + 1, dtype=torch.float64)[:-1].unsqueeze(-1)
    said = learner.predict(drawn.prefix(shown), grid.expand(drawn.batch, -1, -1)).value
    found: Tensor = torch.linalg.lstsq(columns(grid), said.mT).solution.mT
    return found[:, 1:3].square() + found[:, 3:5].square()


def bias(run: Run, learners: Sequence[Learner], name: str) -> Samples:
    """The energy of frequency two per that of frequency one, after two examples of functions that have both alike."""
    episodes = run.setting("episodes asked", smoke=128, cpu=1024)
    along = run.setting("examples", smoke=(FEW,), cpu=(1, FEW, 3, 4, 6, 8, 10))

    def one(seed: int) -> OneSeed:
        drawn = run.sample(FOURIER, episodes, seed=seed)
        learner = learners[run.seeds.index(seed) % len(learners)]
        found = {shown: energies(learner, drawn, shown) for shown in along}
        said, y = learner.prequential(drawn).value, drawn.y
        line = torch.stack([energy[:, 1].mean() / energy[:, 0].mean() for energy in found.values()])
        return OneSeed(
            values=found[FEW][:, 1],
            per=found[FEW][:, 0],
            errors=(said - y).square()[:, 1:].mean(1),
            zero_errors=y.square()[:, 1:].mean(1),
            curves={name: (along, line)},
        )

    return over_seeds(run, one)


def models(run: Run, task: Task, settings: dict[str, Any]) -> list[Learner]:
    """Trained transformers as learners."""
    return [InContext(model) for model in trained(run, task, settings)]


BY_FREQUENCY = Axes(x="examples seen", y="energy of frequency 2 per that of 1", rule=True)
BETWEEN = "regression with both frequencies alike comes to 1.0, and the average that holds half of all functions to be "
BETWEEN += "simple to 0.4; seven tenths lies between"


@claim(
    "Trained on all frequencies alike, it has no bias to simplicity: it does not prefer the low frequency.",
    threshold=0.7,
    direction="above",
    why=BETWEEN,
    kind="trained",
    spread="seeds",
    axes=BY_FREQUENCY,
    expected="undecided",
    tried="one length of training, 1,000 steps: by then transformers still lean to the low frequency, more so the "
    "fewer the examples, and seeds differ",
)
def no_bias(run: Run) -> Samples:
    """After two examples."""
    return bias(run, models(run, FOURIER, series(2)), "trained on both frequencies")


@no_bias.reference("the posterior mean under the same distribution")
def no_bias_optimum(run: Run) -> Samples:
    """Both frequencies alike."""
    return bias(run, [optimum(FOURIER)], "posterior mean, both frequencies")


@no_bias.control("the posterior mean of who holds half of the functions to be simple does")
def no_bias_simple(run: Run) -> Samples:
    """What training on such a distribution comes to, as the next claim shows."""
    return bias(run, [optimum(SIMPLE_FIRST)], "posterior mean, half of them simple")


@claim(
    "Trained on functions half of which are simple, it has the bias that the posterior has: simple ones are preferred.",
    threshold=0.7,
    direction="below",
    why=BETWEEN,
    kind="trained",
    spread="seeds",
    axes=BY_FREQUENCY,
)
def simplicity(run: Run) -> Samples:
    """The same prompts, after two examples."""
    return bias(run, models(run, SIMPLE_FIRST, BY_COMPLEXITY), "trained on half of them simple")


@simplicity.reference("the posterior mean under the same distribution")
def simplicity_optimum(run: Run) -> Samples:
    """Simple and other functions, weighed by evidence."""
    return bias(run, [optimum(SIMPLE_FIRST)], "posterior mean, half of them simple")


@simplicity.control("the posterior mean of who holds both frequencies to be alike does not")
def simplicity_none(run: Run) -> Samples:
    """What training on both alike comes to, as the claim before shows."""
    return bias(run, [optimum(FOURIER)], "posterior mean, both frequencies")
