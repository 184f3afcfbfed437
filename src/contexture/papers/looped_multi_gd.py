r"""Bypassing the exponential dependency: looped transformers take many gradient steps in context (Chen et al. 2024).

One layer of linear self-attention with fixed weights, applied T times to prompts of n examples of a linear function
without noise, x ~ N(0, I_d). With S = X'X / n and kappa its condition number, T steps at rate 1 / largest eigenvalue
leave at most (1 - 1 / kappa)^T of the weights' error; kappa stays bounded as soon as n is a multiple of d.
Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, queries, features].
"""

import torch
from torch import Tensor

from contexture.claims.asked import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import ask
from contexture.models.constructed import set_step
from contexture.models.self_attention import SelfAttention, SelfAttentionConfig, SelfAttentionModel
from contexture.tasks.linear_regression import LinearRegression

PAPER = Paper(
    key="looped-multi-gd",
    title="Bypassing the Exponential Dependency: Looped Transformers Efficiently Learn In-context by Multi-step "
    "Gradient Descent",
    authors="Bo Chen, Xiaoyu Li, Yingyu Liang, Zhenmei Shi, Zhao Song",
    year=2024,
    arxiv="2410.11268",
    uses=("linear-regression",),
)

RATE = 0.44
"""One over the largest eigenvalue of X'X / n, which is about (1 + sqrt(d / n))^2 = 2.25 for n = 4 d."""
LOOPS = 64
DIMENSIONS = (5, 10, 20, 40)


def looped(num_features: int, *, rate: float = RATE, weights: str = "linear") -> SelfAttentionModel:
    """The layer that is one step, to be applied again and again."""
    config = SelfAttentionConfig(num_features=num_features, num_layers=LOOPS, looped=True, weights=weights)
    model = SelfAttentionModel(config, generator=torch.Generator().manual_seed(0)).double()
    layer = model.layers[0]
    assert isinstance(layer, SelfAttention)
    set_step(layer, rate=rate)
    return model.eval().requires_grad_(False)


def descended(x: Tensor, y: Tensor, queries: Tensor) -> list[Tensor]:
    """What gradient descent says after each of its steps, from its own loop over weights."""
    weights, said = x.new_zeros(x.shape[0], x.shape[2], 1), []
    for _ in range(LOOPS):
        weights = weights + RATE / x.shape[1] * (x.mT @ (y.unsqueeze(-1) - x @ weights))
        said.append((queries @ weights).squeeze(-1))
    return said


def by_powers(x: Tensor, y: Tensor, queries: Tensor) -> list[Tensor]:
    """The same from the powers of I - rate S, applied to the least-squares solution."""
    second = torch.eye(x.shape[2], dtype=x.dtype) - RATE / x.shape[1] * (x.mT @ x)
    solution = torch.linalg.lstsq(x, y.unsqueeze(-1)).solution
    left, said = solution, []
    for _ in range(LOOPS):
        left = second @ left
        said.append((queries @ (solution - left)).squeeze(-1))
    return said


def task(num_features: int, examples: int) -> LinearRegression:
    """Prompts of so many examples and a query."""
    return LinearRegression(num_features=num_features, num_points=examples + 1, noise=0.0)


def follows(run: Run, model: SelfAttentionModel | None, name: str) -> Samples:
    """The largest relative difference between a loop's read-out and the step of its number, at d = 10, n = 40."""
    episodes = run.setting("episodes", smoke=64, cpu=2048)

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(task(10, 40), episodes, seed=seed))
        wanted = descended(p.x, p.y, p.queries)
        said = by_powers(p.x, p.y, p.queries) if model is None else model.read_outs(p.x, p.y, p.queries)
        return apart(p, said, wanted, name, competent=0)

    return over_seeds(run, one)


@claim(
    "A layer of linear self-attention with fixed weights, looped, takes one gradient step at every turn.",
    threshold=1e-10,
    direction="below",
    why="double precision leaves about 1e-14 after 64 contracting steps",
    axes=Axes(x="loops", y="difference from gradient descent, relative", log_y=True, rule=True),
)
def construction(run: Run) -> Samples:
    """Sixty-four loops against sixty-four steps."""
    return follows(run, looped(10), "linear attention, looped")


@construction.reference("gradient descent written with the powers of one matrix")
def construction_by_powers(run: Run) -> Samples:
    """The rounding between two ways of writing the same steps."""
    return follows(run, None, "powers of a matrix")


@construction.control("softmax attention with the same weights, looped, does not")
def construction_softmax(run: Run) -> Samples:
    """The same loop but for what weighs the examples."""
    return follows(run, looped(10, weights="softmax"), "softmax attention, looped")


def pace(run: Run, *, loops: int, restarts: bool = False) -> Samples:
    """kappa / T times the logarithm of the share of the error that is left after T loops, at d = 10, n = 40.

    With restarts every loop takes its step from zero again, so that T loops are one step.
    """
    episodes = run.setting("episodes", smoke=64, cpu=2048)
    num_queries = 64

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(task(10, 40 - 1 + num_queries), episodes, seed=seed), num_queries=num_queries)
        values = torch.linalg.eigvalsh(p.x.mT @ p.x)
        condition = values[:, -1] / values[:, 0]
        said = looped(10).read_outs(p.x, p.y, p.queries)
        kept = [said[0]] * LOOPS if restarts else said
        zero = p.targets.square().mean(1)
        shares = torch.stack([(one - p.targets).square().mean(1) / zero for one in kept])
        # The share is of the squared error, of which the root is the error of the weights.
        return OneSeed(
            values=condition / loops * shares[loops - 1].log() / 2,
            errors=(kept[loops - 1] - p.targets).square().mean(1),
            zero_errors=zero,
            curves={"looped" if not restarts else "one step": (range(1, LOOPS + 1), shares.mean(1))},
        )

    return over_seeds(run, one)


@claim(
    "The error falls geometrically with the loops, at least as fast as exp(-T / (2 kappa)).",
    threshold=-0.5,
    direction="below",
    why="the bound's own constant: kappa / T times the logarithm of what is left lies below -1/2",
    axes=Axes(x="loops", y="share of the squared error left", log_y=True),
)
def geometric(run: Run) -> Samples:
    """After 32 loops."""
    return pace(run, loops=32)


@geometric.reference("gradient steps for twice as long")
def geometric_longer(run: Run) -> Samples:
    """After 64 loops: the pace is kept."""
    return pace(run, loops=64)


@geometric.control("loops that begin from zero again do not: together they are one step")
def geometric_restarting(run: Run) -> Samples:
    """The same number of loops without what the last one wrote."""
    return pace(run, loops=32, restarts=True)


def shares(run: Run, *, ratio: float, name: str, exact: bool = False) -> Samples:
    """The largest share of the error left after all loops over dimensions, with n = ratio * d examples.

    The rate is one over the largest eigenvalue to expect at this ratio.
    """
    episodes = run.setting("episodes", smoke=8, cpu=256)
    rate = 1 / (1 + ratio**-0.5) ** 2

    def one(seed: int) -> OneSeed:
        found = []
        for num_features in DIMENSIONS:
            drawn = run.sample(task(num_features, round(ratio * num_features) + 15), episodes, seed=seed)
            p = ask(drawn, num_queries=16)
            if exact:
                solution = torch.linalg.lstsq(p.x, p.y.unsqueeze(-1)).solution
                said = (p.queries @ solution).squeeze(-1)
            else:
                said = looped(num_features, rate=rate).answer(p.x, p.y, p.queries)
            found.append(((said - p.targets).square().mean(1), p.targets.square().mean(1)))
        errors = torch.stack([error / zero.mean() for error, zero in found])
        worst = errors.mean(1).argmax()
        return OneSeed(
            values=errors[worst],
            errors=found[int(worst)][0],
            zero_errors=found[int(worst)][1],
            curves={name: (DIMENSIONS, errors.mean(1))},
        )

    return over_seeds(run, one)


@claim(
    "A number of examples in proportion to the dimension is enough, whatever the dimension: no exponential is needed.",
    threshold=0.01,
    direction="below",
    why="one hundredth of the squared error; exp(-64 / kappa) is below it for the condition number 9 of n = 4 d",
    axes=Axes(x="dimension d", y="share of the squared error left", log_x=True, log_y=True, rule=True),
)
def proportional(run: Run) -> Samples:
    """Four examples to a dimension."""
    return shares(run, ratio=4, name="n = 4 d")


@proportional.reference("least squares on the same examples")
def proportional_exact(run: Run) -> Samples:
    """What endless loops would come to."""
    return shares(run, ratio=4, name="least squares, n = 4 d", exact=True)


@proportional.control("fewer examples than dimensions are not, for as many loops")
def proportional_too_few(run: Run) -> Samples:
    """Three examples to five dimensions: the condition number is infinite."""
    return shares(run, ratio=0.6, name="n = 0.6 d")
