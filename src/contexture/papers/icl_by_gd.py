r"""Transformers learn in-context by gradient descent (von Oswald et al. 2022).

Tokens (x_j, y_j) for ten examples of a linear function without noise and a query (x, 0); layers of self-attention
alone. With weights set by hand a layer of linear attention is a step of gradient descent on the examples' squared
error; trained from small random weights it becomes one. With S = X'X / n = U diag(l) U', k steps from zero filter the
least-squares problem:

    w_k = U diag((1 - prod_i (1 - rate l_i)) / l) U' X'y / n,     l_i = l, or with curvature correction
    l_{i+1} = l_i (1 - gamma l_i)^2                                              (GD++)

The training settings are ours: Adam at 1e-2 with a cosine, batches of 256 or 512 fresh prompts.
Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, 1, features].
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from contexture.claims.asked import apart, beside, silent
from contexture.claims.attention import answers, train_attention
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, Predictor, ask, best_first_rate, cosine, difference, sensitivity
from contexture.models.constructed import descent
from contexture.models.self_attention import SelfAttentionConfig, linear_weights, softmax_weights
from contexture.tasks.sine import Sine
from contexture.tasks.uniform_linear_regression import UniformLinearRegression

PAPER = Paper(
    key="icl-by-gd",
    title="Transformers learn in-context by gradient descent",
    authors="Johannes von Oswald, Eyvind Niklasson, Ettore Randazzo, João Sacramento, Alexander Mordvintsev, "
    "Andrey Zhmoginov, Max Vladymyrov",
    year=2022,
    arxiv="2212.07677",
    uses=("uniform-linear-regression", "sine"),
)

ReadOuts = Callable[[Tensor, Tensor, Tensor], list[Tensor]]

TASK = UniformLinearRegression()
RATE = 1.5
"""About the best rate of a single step on this task (1.53), in units of the gradient of half the mean squared error."""
SOFTMAX_RATE = 1.0
"""About the best rate of a single softmax layer with the same queries and keys (1.04)."""
CURVATURE = 0.4
NUM_STEPS = 5
ROUNDING = "both sides are sums of some hundred products in double precision, which agree to about 1e-15"
BY_LAYER = Axes(x="layers", y="difference from the steps, relative", log_y=True, rule=True)


def steps(x: Tensor, y: Tensor, queries: Tensor, *, rates: list[float], curvature: float = 0.0) -> list[Tensor]:
    """What each further step of gradient descent (GD++ with a curvature) says of the queries, by the filter."""
    values, vectors = torch.linalg.eigh(x.mT @ x / x.shape[1])
    moment = vectors.mT @ (x.mT @ y.unsqueeze(-1)) / x.shape[1]
    left, current, said = torch.ones_like(values), values, []
    for rate in rates:
        left = left * (1 - rate * current)
        current = current * (1 - curvature * current).square()
        filtered = torch.where(values > 1e-9, (1 - left) / values.clamp_min(1e-9), 0).unsqueeze(-1) * moment
        said.append((queries @ (vectors @ filtered)).squeeze(-1))
    return said


def by_autograd(x: Tensor, y: Tensor, queries: Tensor) -> list[Tensor]:
    """The same steps with the gradient taken by automatic differentiation, step after step."""
    weights, said = x.new_zeros(x.shape[0], x.shape[2]), []
    for _ in range(NUM_STEPS):
        with torch.enable_grad():
            asked = weights.requires_grad_(True)
            loss = (y - (x @ asked.unsqueeze(-1)).squeeze(-1)).square().mean(1).sum() / 2
            (gradient,) = torch.autograd.grad(loss, asked)
        weights = weights.detach() - RATE * gradient
        said.append((queries @ weights.unsqueeze(-1)).squeeze(-1))
    return said


def follows(run: Run, read_outs: ReadOuts, name: str, *, curvature: float = 0.0) -> Samples:
    """How far each layer's read-out is from the step of its number: the largest difference over layers."""
    episodes = run.setting("episodes", smoke=64, cpu=2048)

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(TASK, episodes, seed=seed))
        algorithm = steps(p.x, p.y, p.queries, rates=[RATE] * NUM_STEPS, curvature=curvature)
        return apart(p, read_outs(p.x, p.y, p.queries), algorithm, name, competent=0)

    return over_seeds(run, one)


def built(*, rate: float = RATE, curvature: float = 0.0, weights: str = "linear") -> ReadOuts:
    """Layers whose weights are set by hand."""
    return descent(TASK.num_features, num_steps=NUM_STEPS, rate=rate, curvature=curvature, weights=weights).read_outs


@claim(
    "With weights set by hand, each layer of linear self-attention is one step of gradient descent on the examples.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=BY_LAYER,
)
def construction(run: Run) -> Samples:
    """Five layers against five steps."""
    return follows(run, built(), "linear attention")


@construction.reference("gradient descent whose gradient is taken by automatic differentiation")
def construction_by_autograd(run: Run) -> Samples:
    """The rounding that two ways of writing the same steps leave."""
    return follows(run, by_autograd, "automatic differentiation")


@construction.control("the same weights with softmax in place of linear attention are no gradient step")
def construction_softmax(run: Run) -> Samples:
    """The same model but for what weighs the examples, at the rate that is best for it."""
    return follows(run, built(rate=SOFTMAX_RATE, weights="softmax"), "softmax attention")


@claim(
    "Layers that also shrink each input along what the examples cover take gradient steps on ever rounder data (GD++).",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=BY_LAYER,
)
def curvature(run: Run) -> Samples:
    """Five layers of GD++ against the filter that such steps amount to."""
    return follows(run, built(curvature=CURVATURE), "attention that corrects curvature", curvature=CURVATURE)


@curvature.reference("plain steps against the same filter without correction")
def curvature_plain(run: Run) -> Samples:
    """What rounding leaves where there is nothing to correct."""
    return follows(run, built(), "plain attention against plain steps")


@curvature.control("layers that leave the inputs as they are do not follow it")
def curvature_without(run: Run) -> Samples:
    """The same layers but for the correction."""
    return follows(run, built(), "attention without correction", curvature=CURVATURE)


def one_layer(run: Run, *, weights: str = "linear") -> list[Predictor]:
    """A single trained layer for each seed."""
    model = SelfAttentionConfig(num_features=TASK.num_features, weights=weights)
    return [answers(one) for one in train_attention(run, model, task=TASK.card.name, num_steps=1500, batch=512)]


def best_step(run: Run) -> list[Predictor]:
    """The constructed layer at the rate that is best on other prompts of the task, for each seed."""
    p = ask(run.sample(TASK, 8192, seed=run.seeds[0], purpose="rate"))
    model = descent(TASK.num_features, num_steps=1, rate=best_first_rate(*p))
    return [model.answer] * len(run.seeds)


def prompts(run: Run, seed: int) -> Asked:
    """Fresh prompts on which everything trained on the task is compared."""
    return ask(run.sample(TASK, run.setting("episodes", smoke=256, cpu=8192), seed=seed))


def like_a_step(run: Run, predictors: list[Predictor], *, errors: bool) -> Samples:
    """Each seed's predictor beside the best single step: by errors, or by the difference of predictions."""
    return beside(run, partial(prompts, run), predictors, best_step(run), errors=errors)


def bends_like_a_step(run: Run, predictors: list[Predictor]) -> Samples:
    """The cosine between how the two predictions move with the query."""
    ideal = best_step(run)[0]

    def one(seed: int) -> OneSeed:
        p, ours = prompts(run, seed), predictors[run.seeds.index(seed)]
        slopes = [sensitivity(predictor, p.x, p.y, p.queries)[:, 0] for predictor in (ours, ideal)]
        errors = (ours(p.x, p.y, p.queries) - p.targets).square().mean(1)
        return OneSeed(values=cosine(slopes[0], slopes[1]), errors=errors, zero_errors=p.targets.square().mean(1))

    return over_seeds(run, one)


BEST_STEP = "the constructed layer at the best rate"
SOFTMAX = "a layer of softmax attention, trained alike, is something else"


@claim(
    "A trained layer of linear self-attention has the error of one gradient step at the best rate.",
    threshold=1.02,
    direction="below",
    why="no single layer can be better, and 2 % is what training to the last digit is worth here",
    kind="trained",
    spread="seeds",
)
def trained_loss(run: Run) -> Samples:
    """The ratio of errors."""
    return like_a_step(run, one_layer(run), errors=True)


@trained_loss.reference(BEST_STEP)
def trained_loss_reference(run: Run) -> Samples:
    """The ratio for the step itself, its rate found on other prompts."""
    return like_a_step(run, best_step(run), errors=True)


@trained_loss.control(SOFTMAX)
def trained_loss_softmax(run: Run) -> Samples:
    """The ratio for softmax."""
    return like_a_step(run, one_layer(run, weights="softmax"), errors=True)


@claim(
    "The trained layer's predictions are those of the gradient step.",
    threshold=0.02,
    direction="below",
    why="a correlation of .99, as the first replication gave, leaves 2 % of the step's square",
    kind="trained",
    spread="seeds",
)
def trained_predictions(run: Run) -> Samples:
    """Squared prediction difference over the step's own square."""
    return like_a_step(run, one_layer(run), errors=False)


@trained_predictions.reference(BEST_STEP)
def trained_predictions_reference(run: Run) -> Samples:
    """The step against itself."""
    return like_a_step(run, best_step(run), errors=False)


@trained_predictions.control(SOFTMAX)
def trained_predictions_softmax(run: Run) -> Samples:
    """The difference for softmax."""
    return like_a_step(run, one_layer(run, weights="softmax"), errors=False)


@claim(
    "The trained layer bends to its query as the gradient step does: its sensitivities point the same way.",
    threshold=0.99,
    direction="above",
    why="the published curves of this cosine end at about 1; .99 is an angle of 8 degrees in ten dimensions",
    kind="trained",
    spread="seeds",
)
def trained_sensitivities(run: Run) -> Samples:
    """The cosine of the two derivatives by the query."""
    return bends_like_a_step(run, one_layer(run))


@trained_sensitivities.reference(BEST_STEP)
def trained_sensitivities_reference(run: Run) -> Samples:
    """The step against itself."""
    return bends_like_a_step(run, best_step(run))


@trained_sensitivities.control(SOFTMAX)
def trained_sensitivities_softmax(run: Run) -> Samples:
    """The cosine for softmax."""
    return bends_like_a_step(run, one_layer(run, weights="softmax"))


TWO_RATES = [1.1, 2.9]
"""The best rates of two plain steps, to a tenth, by a search over 8,192 prompts: error .334 of zero's."""


def two_layers(run: Run, *, targets_only: bool = False) -> list[Predictor]:
    """Two trained layers for each seed; with targets_only they cannot change the inputs."""
    writes: Literal["all", "targets"] = "targets" if targets_only else "all"
    model = SelfAttentionConfig(num_features=TASK.num_features, num_layers=2, std=0.1, writes=writes)
    return [answers(one) for one in train_attention(run, model, task=TASK.card.name, num_steps=4000, batch=256)]


def two_steps(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """Two plain steps at their best rates."""
    return steps(x, y, queries, rates=TWO_RATES)[-1]


def beside_two_steps(run: Run, predictors: list[Predictor]) -> Samples:
    """Squared errors per those of two plain steps at their best rates."""
    return beside(run, partial(prompts, run), predictors, [two_steps], errors=True)


@claim(
    "Two trained layers do better than two plain gradient steps, by correcting the curvature of their inputs.",
    threshold=0.9,
    direction="below",
    why="the constructed correction comes to about .83; a tenth lies well beyond what training leaves open",
    tried="2,000 steps first: undecided, as one control of three stood on a plateau; both then got 4,000",
    kind="trained",
    spread="seeds",
)
def trained_depth(run: Run) -> Samples:
    """The error of two layers per that of two steps."""
    return beside_two_steps(run, two_layers(run))


@trained_depth.reference("two constructed layers with curvature correction (GD++)")
def trained_depth_reference(run: Run) -> Samples:
    """The same ratio, for weights set by hand: rate 2.8 and gamma .4, by the same search."""
    model = descent(TASK.num_features, num_steps=2, rate=2.8, curvature=CURVATURE)
    return beside_two_steps(run, [model.answer] * len(run.seeds))


@trained_depth.control("two trained layers that cannot change their inputs do no better")
def trained_depth_frozen(run: Run) -> Samples:
    """The same budget, the same layers, but they write to targets alone."""
    return beside_two_steps(run, two_layers(run, targets_only=True))


def sine_layer(run: Run, *, embed: tuple[int, ...]) -> list[Predictor]:
    """A trained layer over what a perceptron makes of x, or over x itself."""
    model = SelfAttentionConfig(num_features=1, embed=embed, std=0.25)
    trained = train_attention(run, model, task=Sine.card.name, num_steps=10_000, batch=64, rate=5e-3)
    return [answers(one) for one in trained]


def on_sines(run: Run, predictors: list[Predictor]) -> Samples:
    """Squared errors on sines, per those of the zero predictor."""
    episodes = run.setting("episodes", smoke=256, cpu=8192)
    return beside(run, lambda seed: ask(run.sample(Sine(), episodes, seed=seed)), predictors, [silent], errors=True)


@claim(
    "Over the features of a perceptron trained with it, one layer of linear attention regresses sines.",
    threshold=0.5,
    direction="below",
    why="half of the zero predictor's error lies between a step on the right features and one on x itself",
    tried="5,000 steps first: undecided, as one seed of three had found one feature of the two; then 10,000",
    kind="trained",
    spread="seeds",
)
def features(run: Run) -> Samples:
    """A layer over a perceptron of sizes 40 and 20."""
    return on_sines(run, sine_layer(run, embed=(40, 20)))


@features.reference("one gradient step on the two features that span every sine of this frequency")
def features_reference(run: Run) -> Samples:
    """A step on (sin x, cos x) at the rate 1.8, about the best for 24 examples: 2 / (1 + 3 / 24)."""

    def step(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
        shown, asked = (torch.cat((part.sin(), part.cos()), 2) for part in (x, queries))
        return 1.8 * (asked @ (shown.mT @ y.unsqueeze(-1))).squeeze(-1) / x.shape[1]

    return on_sines(run, [step] * len(run.seeds))


@features.control("the same layer over x itself does not")
def features_without(run: Run) -> Samples:
    """The same training without the perceptron."""
    return on_sines(run, sine_layer(run, embed=()))


def apart_tokens(run: Run, *, sharpness: float) -> Samples:
    """Examples as tokens x_1, y_1, x_2, ..: a layer that copies each token's predecessor, then a step over both.

    A token holds (x, its predecessor's x, y). With one-hot positions the first layer scores the predecessor
    `sharpness` and every other token 0; the second has its keys in the copied x and its values in y.
    """
    episodes = run.setting("episodes", smoke=64, cpu=2048)

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(TASK, episodes, seed=seed))
        (batch, time), width = p.y.shape, p.x.shape[2]
        own = p.x.new_zeros(batch, 2 * time, width)
        targets = p.y.new_zeros(batch, 2 * time)
        own[:, 0::2], targets[:, 1::2] = p.x, p.y
        predecessor = torch.eye(2 * time, dtype=p.x.dtype).roll(1, 0).tril(-1)
        copied = softmax_weights(sharpness * predecessor) @ own
        scores = p.queries @ copied.mT
        said = 2 * RATE * (linear_weights(scores) @ targets.unsqueeze(-1)).squeeze(-1)
        distance, size = difference(said, steps(p.x, p.y, p.queries, rates=[RATE])[0])
        return OneSeed(values=(distance / size.mean()).sqrt())

    return over_seeds(run, one)


@claim(
    "With x and y in separate tokens, a layer that copies from the token before makes the gradient step possible.",
    threshold=1e-10,
    direction="below",
    why="a logit of 40 leaves e^-40, about 4e-18, to each other token",
)
def copying(run: Run) -> Samples:
    """An induction head's first half, then the step."""
    return apart_tokens(run, sharpness=40.0)


@copying.reference("the same at a logit of 80")
def copying_reference(run: Run) -> Samples:
    """Copying without anything left to others."""
    return apart_tokens(run, sharpness=80.0)


@copying.control(
    "a first layer that looks at all tokens alike leaves nothing to learn from",
    incompetent="without pairs there is no regression: that is what the claim says",
)
def copying_from_all(run: Run) -> Samples:
    """The same layers at a logit of zero."""
    return apart_tokens(run, sharpness=0.0)
