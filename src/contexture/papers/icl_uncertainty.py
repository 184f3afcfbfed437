r"""Towards better understanding of in-context learning ability from in-context uncertainty quantification
(Liu, Cai, Chen, Li 2024).

Linear regressions whose noise differs from prompt to prompt; a transformer with two outputs is trained on

    (log v_t + (y_t - m_t)^2 / v_t) / 2,       least for m = E[y | examples],  v = Var[y | examples]

so that what it loses against the Bayesian is the divergence of two normal laws,

    KL = (v* / v - 1 + log(v / v*) + (m - m*)^2 / v) / 2,

here per what the Bayesian gains over who knows the variance of y alone. The Bayesian averages ridge regressions over
the four noise levels by evidence. Who has no prior takes least squares with v = RSS / (n - d) (1 + x'(X'X)^-1 x).
Two features, twelve examples, three layers: sizes and noise levels are ours.
Shapes: x [episodes, time, features]; y, m, v [episodes, time].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from contexture.claims.in_context import small_backbone, train_in_context
from contexture.claims.protocol import Axes, Curve, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.in_context import InContext
from contexture.learners.oracles.model_average import ModelAverage
from contexture.models.pairs import PairsModel
from contexture.protocols import Learner, Pairs
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.mixture import Mixture
from contexture.tasks.scaled_linear_regression import ScaledLinearRegression

PAPER = Paper(
    key="icl-uncertainty",
    title="Towards Better Understanding of In-Context Learning Ability from In-Context Uncertainty Quantification",
    authors="Shang Liu, Zhongze Cai, Guanting Chen, Xiaocheng Li",
    year=2024,
    arxiv="2405.15115",
    uses=("mixture", "linear-regression", "scaled-linear-regression", "model-average", "bayes-ridge", "softmax"),
    left_out={
        "a bound on the generalisation error that tightens with the number and the length of training sequences": ""
        "many trainings on pools of sequences of many sizes, each to convergence",
        "longer prompts are learned from as well where training varies their length": "further trainings with codes of "
        "positions that go beyond the prompts of training",
    },
)

NUM_FEATURES, TIME = 2, 12
LEVELS = (0.25, 0.5, 1.0, 2.0)
MIDDLE = 1.0
SCALES = (1 / 3, 1.0, 3.0)
SHAPE: dict[str, Any] = {"num_features": NUM_FEATURES, "num_points": TIME}
TASK = Mixture(tasks=tuple(LinearRegression(**SHAPE, noise=noise) for noise in LEVELS), shares=(0.25,) * 4)


class Law(NamedTuple):
    """Mean and variance of every y from x up to it and y before it."""

    mean: Tensor
    variance: Tensor


Says = Callable[[Pairs], Law]


def says(learner: Learner) -> Says:
    """What a learner that models the spread predicts."""

    def law(drawn: Pairs) -> Law:
        said = learner.prequential(drawn)
        assert said.mean is not None
        assert said.variance is not None
        return Law(said.mean, said.variance)

    return law


def bayesian(*, levels: Sequence[float] = LEVELS, scale: float = 1.0) -> Says:
    """Ridge regressions averaged over noise levels by evidence, for weights of this deviation."""
    ridges = tuple(BayesRidge(prior_variance=scale**2, noise_variance=noise**2) for noise in levels)
    return says(ModelAverage(learners=ridges, shares=(1 / len(ridges),) * len(ridges)))


FINER = tuple(2.0 ** (k / 2) for k in range(-4, 3))
"""Twice as many noise levels over the same range."""


def least_squares(drawn: Pairs) -> tuple[Law, Tensor]:
    """Predictions of least squares with the noise's variance taken to be one, and RSS of the examples before each."""
    x, y = drawn.x, drawn.y.unsqueeze(-1)
    second = (x.unsqueeze(-1) * x.unsqueeze(-2)).cumsum(1)[:, :-1] + 1e-9 * torch.eye(x.shape[2], dtype=x.dtype)
    moment, square = (x * y).cumsum(1)[:, :-1], drawn.y.square().cumsum(1)[:, :-1]
    weights = torch.linalg.solve(second, moment.unsqueeze(-1)).squeeze(-1)
    query = x[:, 1:].unsqueeze(-1)
    leverage = (query.mT @ torch.linalg.solve(second, query)).flatten(2).squeeze(-1)
    left = square - (weights * moment).sum(-1)
    means, spreads = (x[:, 1:] * weights).sum(-1), 1 + leverage
    start = torch.zeros_like(drawn.y[:, :1])
    law = Law(torch.cat((start, means), 1), torch.cat((start + 1, spreads), 1))
    return law, torch.cat((start, left), 1).clamp_min(1e-6)


def without_prior(drawn: Pairs, *, unbiased: bool = True) -> Law:
    """Least squares; the noise's variance is RSS over n - d, or over n as the likelihood has it."""
    law, left = least_squares(drawn)
    n = torch.arange(drawn.time, dtype=left.dtype) - (drawn.x.shape[2] if unbiased else 0)
    return Law(law.mean, law.variance * left / n.clamp_min(1))


def one_level(drawn: Pairs) -> Law:
    """Least squares that holds the noise to be the lowest level and infers nothing of it."""
    law, _ = least_squares(drawn)
    return Law(law.mean, LEVELS[0] ** 2 * law.variance)


def trained(run: Run, *, noises: Sequence[float] = LEVELS, scales: Sequence[float] = (1.0,)) -> list[PairsModel]:
    """A transformer for each seed, trained on prompts of these noise levels and scales of the inputs."""
    families = [
        {"name": ScaledLinearRegression.card.name, "settings": SHAPE | {"noise": noise, "scale": scale}}
        for noise in noises
        for scale in scales
    ]
    several = len(families) > 1
    return train_in_context(
        run,
        small_backbone(TIME),
        task=Mixture.card.name if several else ScaledLinearRegression.card.name,
        settings={"tasks": families, "shares": [1 / len(families)] * len(families)}
        if several
        else SHAPE | {"noise": noises[0], "scale": scales[0]},
        num_features=NUM_FEATURES,
        num_steps=1000,
        head="gaussian",
    )


def of(models: Sequence[PairsModel]) -> list[Says]:
    """What trained transformers say."""
    return [says(InContext(model)) for model in models]


def divergence(wanted: Law, said: Law) -> Tensor:
    """KL(wanted | said) of normal laws, in nats."""
    ratio = wanted.variance / said.variance
    return (ratio - 1 - ratio.log() + (wanted.mean - said.mean).square() / said.variance) / 2


def gained(drawn: Pairs, best: Law) -> Tensor:
    """What the best law gains in log-density over a normal law with the variance of y."""
    known = drawn.y.square().mean()
    least = (best.variance.log() + (drawn.y - best.mean).square() / best.variance) / 2
    return (known.log() + drawn.y.square() / known) / 2 - least


FIRST = 1
AFTER = 3
"""From more examples than features on, least squares has residuals."""


def shifted(run: Run, seed: int, *, weights: float = 1.0, inputs: float = 1.0) -> Pairs:
    """Fresh prompts whose weights, or inputs, are so many times as large as in training."""
    drawn = run.sample(TASK, run.setting("episodes", smoke=512, cpu=4096), seed=seed)
    assert drawn.clean is not None
    clean = weights * inputs * drawn.clean
    return replace(drawn, x=inputs * drawn.x, y=clean + drawn.y - drawn.clean, clean=clean)


def lost(
    run: Run,
    said: Sequence[Says],
    *,
    name: str = "",
    weights: float = 1.0,
    inputs: float = 1.0,
    against: Sequence[float] = (1.0,),
    first: int = FIRST,
) -> Samples:
    """The divergence from the nearest of Bayesians per what the last of them gains; a Bayesian for each prior scale."""

    def one(seed: int) -> OneSeed:
        drawn = shifted(run, seed, weights=weights, inputs=inputs)
        laws = [bayesian(scale=scale)(drawn) for scale in against]
        ours = said[run.seeds.index(seed) % len(said)](drawn)
        apart = [divergence(law, ours)[:, first:] for law in laws]
        nearest = min(apart, key=lambda values: float(values.mean()))
        gain = gained(drawn, laws[-1])[:, first:]
        return OneSeed(
            values=nearest.mean(1),
            per=gain.mean(1),
            errors=(ours.mean - drawn.y).square()[:, first:].mean(1),
            zero_errors=drawn.y.square()[:, first:].mean(1),
            curves={name: (range(first, TIME), nearest.mean(0) / gain.mean())},
        )

    return over_seeds(run, one)


QUARTER = "three quarters of what can be gained, in nats, over who knows the variance of y alone"


TRIED = "1,000 steps for each of three seeds, which differ by more than lets them decide; more were not trained"


@claim(
    "Asked for mean and variance, a trained transformer is near the Bayesian in both, where noise differs by prompt.",
    threshold=0.25,
    direction="below",
    expected="undecided",
    tried=TRIED,
    why=QUARTER,
    kind="trained",
    spread="seeds",
    axes=Axes(x="examples seen", y="share of the Bayesian's gain that is lost", log_y=True, rule=True),
    leaves_out="noise from a continuous prior, eight features and forty examples, in models of twelve layers",
)
def near_bayes(run: Run) -> Samples:
    """Four noise levels, from the first example on."""
    return lost(run, of(trained(run)), name="trained on four noise levels")


@near_bayes.reference("the Bayesian who holds twice as many noise levels to be possible")
def near_bayes_finer(run: Run) -> Samples:
    """Another prior over the same range."""
    return lost(run, [bayesian(levels=FINER)], name="Bayesian with finer levels")


@near_bayes.control("the same transformer, trained on the middle noise level alone, is not")
def near_bayes_one_level(run: Run) -> Samples:
    """The same budget without noise that differs."""
    return lost(run, of(trained(run, noises=(MIDDLE,))), name="trained on one noise level")


def prior_or_not(run: Run, said: Sequence[Says], name: str) -> Samples:
    """Squared differences in log-variance from the Bayesian, per those from who has no prior, after 3 examples."""

    def one(seed: int) -> OneSeed:
        drawn = shifted(run, seed)
        ours = said[run.seeds.index(seed) % len(said)](drawn)
        near, far = (
            (ours.variance.log() - law.variance.log()).square()[:, AFTER:]
            for law in (bayesian()(drawn), without_prior(drawn))
        )
        return OneSeed(
            values=near.mean(1),
            per=far.mean(1),
            errors=(ours.mean - drawn.y).square()[:, AFTER:].mean(1),
            zero_errors=drawn.y.square()[:, AFTER:].mean(1),
            curves={
                f"{name}, from the Bayesian": (range(AFTER, TIME), near.mean(0)),
                f"{name}, from least squares": (range(AFTER, TIME), far.mean(0)),
            },
        )

    return over_seeds(run, one)


@claim(
    "Variances tell whether a prior is at work: its own are the Bayesian's, not those of who knows no prior.",
    threshold=0.25,
    direction="below",
    expected="undecided",
    tried=TRIED,
    why="half as far from the one as from the other, in logarithms; this is the square",
    kind="trained",
    spread="seeds",
    axes=Axes(x="examples seen", y="squared difference of log-variances", log_y=True),
)
def prior_at_work(run: Run) -> Samples:
    """From the third example on."""
    return prior_or_not(run, of(trained(run)), "transformer")


@prior_at_work.reference("the Bayesian who holds twice as many noise levels to be possible")
def prior_at_work_finer(run: Run) -> Samples:
    """Another prior over the same range."""
    return prior_or_not(run, [bayesian(levels=FINER)], "Bayesian with finer levels")


@prior_at_work.control("those of least squares with the likeliest variance are not")
def prior_at_work_likeliest(run: Run) -> Samples:
    """Another rule without a prior."""
    rule = [lambda drawn: without_prior(drawn, unbiased=False)]
    return prior_or_not(run, rule, "least squares, likeliest variance")


LARGER = 4.0
ALONG = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def by_scale(run: Run, who: Mapping[str, Sequence[Says]], *, what: str) -> dict[str, Curve]:
    """Losses against the Bayesian of the scale at hand, by the scale of weights or inputs."""
    drawn = run.setting("scales drawn", smoke=(LARGER,), cpu=ALONG)

    def ratio(said: Sequence[Says], scale: float) -> Tensor:
        if what == "weights":
            samples = lost(run, said, weights=scale, against=(1.0, scale), first=AFTER)
        else:
            samples = lost(run, said, inputs=scale)
        assert samples.per is not None
        return samples.values.mean(1) / samples.per.mean(1)

    return {
        name: Curve(x=drawn, y=torch.stack([ratio(said, scale) for scale in drawn], 1)) for name, said in who.items()
    }


@claim(
    "With weights from elsewhere it infers like no Bayesian, neither of the prior in training nor of the new one.",
    threshold=0.25,
    direction="above",
    expected="undecided",
    tried=TRIED,
    why="the same quarter within which it counts as near the Bayesian in training",
    kind="trained",
    spread="seeds",
    axes=Axes(x="scale of the weights", y="share of the gain lost, to the nearest Bayesian", log_y=True, rule=True),
)
def task_shift(run: Run) -> Samples:
    """Weights four times as large."""
    said = of(trained(run))
    found = lost(run, said, weights=LARGER, against=(1.0, LARGER), first=AFTER)
    return replace(found, curves=by_scale(run, {"transformer": said}, what="weights"))


@task_shift.reference("least squares that holds the noise to be the lowest level")
def task_shift_one_level(run: Run) -> Samples:
    """No prior over weights, and nothing is inferred of the noise."""
    return lost(run, [one_level], weights=LARGER, against=(1.0, LARGER), first=AFTER)


@task_shift.control("the Bayesian of the prior in training, with twice as many noise levels, does not")
def task_shift_bayesian(run: Run) -> Samples:
    """A Bayesian on the same prompts, which the new prior surprises."""
    return lost(run, [bayesian(levels=FINER)], weights=LARGER, against=(1.0, LARGER), first=AFTER)


ASKED = 2.0


@claim(
    "Shifted inputs are learned from as well, where training varies the inputs' scale: scales are a family, too.",
    threshold=0.25,
    direction="below",
    expected="undecided",
    tried=TRIED,
    why=QUARTER,
    kind="trained",
    spread="seeds",
    axes=Axes(x="scale of the inputs", y="share of the Bayesian's gain that is lost", log_y=True, rule=True),
)
def input_shift(run: Run) -> Samples:
    """Inputs twice as large; in training they are a third, once or three times as large."""
    varied, fixed = of(trained(run, scales=SCALES)), of(trained(run))
    who = {"scales 1/3, 1, 3 in training": varied, "scale 1 in training": fixed}
    return replace(lost(run, varied, inputs=ASKED), curves=by_scale(run, who, what="inputs"))


@input_shift.reference("the Bayesian who holds twice as many noise levels to be possible")
def input_shift_finer(run: Run) -> Samples:
    """To whom the inputs' scale is all the same."""
    return lost(run, [bayesian(levels=FINER)], inputs=ASKED)


@input_shift.control("the same transformer, trained on one scale, does not")
def input_shift_fixed(run: Run) -> Samples:
    """The same budget without the family."""
    return lost(run, of(trained(run)), inputs=ASKED)
