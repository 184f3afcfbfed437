r"""Transformers learn in-context by gradient descent (von Oswald et al. 2022).

Tokens (x_j, y_j) for ten examples of a linear function without noise and a query (x, 0); layers of self-attention
alone. With weights set by hand a layer of linear attention is a step of gradient descent on the examples' squared
error; trained from small random weights it becomes one. With S = X'X / n = U diag(l) U', n_k steps from zero filter
the least-squares problem:

    w_k = U diag((1 - prod_i (1 - rate l_i)) / l) U' X'y / n,     l_i = l, or with curvature correction
    l_{i+1} = l_i (1 - gamma l_i)^2                                              (GD++)

Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, 1, features].
"""

from collections.abc import Callable

import torch
from torch import Tensor

from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import difference
from contexture.models.constructed import descent
from contexture.tasks.uniform_linear_regression import UniformLinearRegression

PAPER = Paper(
    key="icl-by-gd",
    title="Transformers learn in-context by gradient descent",
    authors="Johannes von Oswald, Eyvind Niklasson, Ettore Randazzo, João Sacramento, Alexander Mordvintsev, "
    "Andrey Zhmoginov, Max Vladymyrov",
    year=2022,
    arxiv="2212.07677",
    uses=("uniform-linear-regression",),
)

ReadOuts = Callable[[Tensor, Tensor, Tensor], list[Tensor]]

TASK = UniformLinearRegression()
RATE = 1.5
"""About the best rate of a single step on this task (1.52), in units of the gradient of half the mean squared error."""
SOFTMAX_RATE = 1.0
"""About the best rate of a single softmax layer with the same queries and keys (1.04)."""
CURVATURE = 0.4
NUM_STEPS = 5
ROUNDING = "both sides are sums of some hundred products in double precision, which agree to about 1e-15"
BY_LAYER = Axes(x="layers", y="difference from gradient descent, relative", log_y=True, rule=True)


def steps(x: Tensor, y: Tensor, queries: Tensor, *, rate: float, curvature: float = 0.0) -> list[Tensor]:
    """What 1, 2, .. NUM_STEPS steps of gradient descent (GD++ with a curvature) say of the queries, by the filter."""
    values, vectors = torch.linalg.eigh(x.mT @ x / x.shape[1])
    moment = vectors.mT @ (x.mT @ y.unsqueeze(-1)) / x.shape[1]
    left, current, said = torch.ones_like(values), values, []
    for _ in range(NUM_STEPS):
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


def apart(run: Run, read_outs: ReadOuts, name: str, *, curvature: float = 0.0) -> Samples:
    """How far each layer's read-out is from the step of its number: the largest difference over layers."""
    episodes = run.setting("episodes", smoke=64, cpu=2048)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(TASK, episodes, seed=seed)
        x, y, queries, targets = drawn.x[:, :-1], drawn.y[:, :-1], drawn.x[:, -1:], drawn.y[:, -1:]
        said = read_outs(x, y, queries)
        algorithm = steps(x, y, queries, rate=RATE, curvature=curvature)
        parts = [difference(ours, theirs) for ours, theirs in zip(said, algorithm, strict=True)]
        gaps = torch.stack([(gap / size.mean()).sqrt() for gap, size in parts])
        return OneSeed(
            values=gaps.amax(0),
            errors=(said[0] - targets).square().mean(1),
            zero_errors=targets.square().mean(1),
            curves={name: (range(1, NUM_STEPS + 1), gaps.mean(1))},
        )

    return over_seeds(run, one)


def built(*, rate: float = RATE, curvature: float = 0.0, weights: str = "linear") -> ReadOuts:
    """Layers whose weights are set by hand."""
    return descent(
        TASK.num_features, num_steps=NUM_STEPS, rate=rate, curvature=curvature, weights=weights
    ).read_outs


@claim(
    "With weights set by hand, each layer of linear self-attention is one step of gradient descent on the examples.",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=BY_LAYER,
)
def construction(run: Run) -> Samples:
    """Five layers against five steps."""
    return apart(run, built(), "linear attention")


@construction.reference("gradient descent whose gradient is taken by automatic differentiation")
def construction_by_autograd(run: Run) -> Samples:
    """The rounding that two ways of writing the same steps leave."""
    return apart(run, by_autograd, "automatic differentiation")


@construction.control("the same weights with softmax in place of linear attention are no gradient step")
def construction_softmax(run: Run) -> Samples:
    """The same model but for what weighs the examples, at the rate that is best for it."""
    return apart(run, built(rate=SOFTMAX_RATE, weights="softmax"), "softmax attention")


@claim(
    "Layers that also shrink each input along what the examples cover take gradient steps on ever rounder data (GD++).",
    threshold=1e-10,
    direction="below",
    why=ROUNDING,
    axes=Axes(x="layers", y="difference from GD++, relative", log_y=True, rule=True),
)
def curvature(run: Run) -> Samples:
    """Five layers of GD++ against the filter that such steps amount to."""
    return apart(run, built(curvature=CURVATURE), "attention that corrects curvature", curvature=CURVATURE)


@curvature.reference("plain steps against the same filter without correction")
def curvature_plain(run: Run) -> Samples:
    """What rounding leaves where there is nothing to correct."""
    return apart(run, built(), "plain attention against plain steps")


@curvature.control("layers that leave the inputs as they are do not follow it")
def curvature_without(run: Run) -> Samples:
    """The same layers but for the correction."""
    return apart(run, built(), "attention without correction", curvature=CURVATURE)
