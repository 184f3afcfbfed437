r"""Transformers learn higher-order optimization methods for in-context learning (Fu et al. 2023).

Iterative Newton towards the inverse of S = X'X:  M_0 = a S,  M_{k+1} = 2 M_k - M_k S M_k,  w_k = M_k X'y. Let a token
hold its input x_j and a slot m_j = M_k x_j. Since S = sum_i x_i x_i', one layer of linear attention with queries x_j
and keys and values m_i makes the next slot,

    m_j <- 2 m_j - sum_i m_i <m_i, x_j>,

m_j = a sum_i x_i <x_i, x_j> takes a layer to begin with, and sum_i y_i <x_i, m> one to read the query: k iterations in
k + 2 layers. Gradient descent M_{k+1} = M_k + b I - b M_k S is the layer m_j <- m_j + b x_j - b sum_i m_i <x_i, x_j>.
Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, queries, features].
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from contexture.claims.asked import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, ask, best_matching_step
from contexture.tasks.linear_regression import LinearRegression

PAPER = Paper(
    key="higher-order",
    title="Transformers Learn Higher-Order Optimization Methods for In-Context Learning: A Study with Linear Models",
    authors="Deqing Fu, Tian-Qi Chen, Robin Jia, Vatsal Sharan",
    year=2023,
    arxiv="2310.17086",
    uses=("linear-regression", "newton", "gd"),
    left_out={
        "the read-outs of a trained transformer's layers match Newton's iterations one after another, about three to a "
        "middle layer": "needs transformers of many layers trained for tens of thousands of steps",
    },
)

NUM_FEATURES, EXAMPLES = 20, 40
TASK = LinearRegression(num_features=NUM_FEATURES, num_points=EXAMPLES + 1, noise=0.0)
ITERATIONS = 12
GD_STEPS = 400


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Linear attention without a factor: sum_i v_i <k_i, q_j>."""
    return (queries @ keys.mT) @ values


def start(p: Asked) -> Tensor:
    """a = 1.9 / (largest eigenvalue of S)^2, [episodes, 1, 1]."""
    largest: Tensor = torch.linalg.eigvalsh(p.x.mT @ p.x)[:, -1, None, None]
    return 1.9 / largest.square()


def layers(p: Asked, *, order: int = 2) -> list[Tensor]:
    """What is read after the first layer and after each further one, whose keys are slots (order 2) or inputs."""
    items, n = torch.cat((p.x, p.queries), 1), p.x.shape[1]
    slots = start(p) * attend(items, p.x, p.x)
    rate = 1 / torch.linalg.eigvalsh(p.x.mT @ p.x)[:, -1, None, None]
    said = []
    for k in range(ITERATIONS + 1):
        if k:
            context = slots[:, :n]
            slots = (
                2 * slots - attend(items, context, context)
                if order == 2
                else slots + rate * (items - attend(items, p.x, context))
            )
        said.append(attend(slots[:, n:], p.x, p.y.unsqueeze(-1)).squeeze(-1))
    return said


def newton(p: Asked) -> list[Tensor]:
    """Predictions of the iteration over matrices, from M_0 on."""
    second = p.x.mT @ p.x
    inverse, said = start(p) * second, []
    for _ in range(ITERATIONS + 1):
        said.append((p.queries @ (inverse @ (p.x.mT @ p.y.unsqueeze(-1)))).squeeze(-1))
        inverse = 2 * inverse - inverse @ second @ inverse
    return said


def by_eigenvalues(p: Asked) -> list[Tensor]:
    """The same: every eigenvalue l of S has 1 - l m_k = (1 - a l^2)^(2^k)."""
    values, vectors = torch.linalg.eigh(p.x.mT @ p.x)
    left = 1 - start(p).squeeze(-1) * values.square()
    moment = vectors.mT @ (p.x.mT @ p.y.unsqueeze(-1))
    filters = [(1 - left ** (2**k)) / values for k in range(ITERATIONS + 1)]
    return [(p.queries @ (vectors @ (f.unsqueeze(-1) * moment))).squeeze(-1) for f in filters]


def descent(p: Asked, *, steps: int, rate_over: float = 1.0) -> list[Tensor]:
    """Predictions of gradient descent at `rate_over` / largest eigenvalue after 0, 1, .. steps, by eigenvalues."""
    values, vectors = torch.linalg.eigh(p.x.mT @ p.x)
    left = 1 - rate_over * values / values[:, -1:]
    moment = vectors.mT @ (p.x.mT @ p.y.unsqueeze(-1))
    read = p.queries @ vectors
    return [(read @ (((1 - left**k) / values).unsqueeze(-1) * moment)).squeeze(-1) for k in range(steps + 1)]


PREDICTIONS: Mapping[str, Callable[[Asked], list[Tensor]]] = {
    "layers": layers,
    "first order": partial(layers, order=1),
    "newton": newton,
    "eigenvalues": by_eigenvalues,
    "descent": lambda p: descent(p, steps=36)[::3],
}


def follows(run: Run, said_by: str) -> Samples:
    """The largest relative difference to Newton's iteration, over iterations."""
    episodes = run.setting("episodes", smoke=64, cpu=1024)

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(TASK, episodes, seed=seed))
        return apart(p, PREDICTIONS[said_by](p), newton(p), said_by, first=0)

    return over_seeds(run, one)


@claim(
    "Layers of linear attention whose weights are set by hand iterate Newton's method, one iteration to a layer.",
    threshold=1e-8,
    direction="below",
    why="the iteration squares matrices of condition up to 1e3, which costs double precision some six digits",
    axes=Axes(x="iteration", y="difference from Newton's iteration, relative", log_y=True, rule=True),
)
def construction(run: Run) -> Samples:
    """k iterations in k + 2 layers."""
    return follows(run, "layers")


@construction.reference("Newton's iteration by the eigenvalues of X'X")
def construction_by_eigenvalues(run: Run) -> Samples:
    """The rounding between two ways of writing the iteration."""
    return follows(run, "eigenvalues")


@construction.control("layers whose keys stay the inputs take gradient steps, and are elsewhere")
def construction_first_order(run: Run) -> Samples:
    """The same layers with the input in place of the slot as the key."""
    return follows(run, "first order")


def doubling(run: Run, *, learner: str) -> Samples:
    """By what factor the best-matching number of gradient steps grows from one of a learner's stages to the next."""
    episodes = run.setting("episodes", smoke=64, cpu=1024)
    first, last = 7, 11

    def one(seed: int) -> OneSeed:
        p = ask(run.sample(TASK, episodes, seed=seed))
        steps = descent(p, steps=GD_STEPS)
        said = PREDICTIONS[learner](p)[first : last + 1]
        values, counts = [], best_matching_step(said, steps).double()
        groups = torch.arange(p.targets.shape[0]).chunk(8)
        for rows in groups:
            found = best_matching_step([part[rows] for part in said], [part[rows] for part in steps]).double()
            values.append((found[-1] / found[0]) ** (1 / (last - first)))
        return OneSeed(
            values=torch.stack(values),
            errors=torch.stack([(said[-1] - p.targets).square()[rows].mean() for rows in groups]),
            zero_errors=torch.stack([p.targets.square()[rows].mean() for rows in groups]),
            curves={learner: (range(first, last + 1), counts)},
        )

    return over_seeds(run, one)


@claim(
    "To match one more of Newton's iterations, gradient descent needs steps that grow by a constant factor.",
    threshold=1.5,
    direction="above",
    why="the theory's factor is 2 in the end; a fixed number of steps a stage comes to (33 / 21)^(1/4) = 1.12",
    axes=Axes(x="iteration", y="best-matching number of gradient steps", log_y=True),
)
def exponentially_more(run: Run) -> Samples:
    """The growth from iteration 7 to 11, for eight groups of prompts."""
    return doubling(run, learner="newton")


@exponentially_more.reference("Newton's iteration by the eigenvalues of X'X")
def exponentially_more_reference(run: Run) -> Samples:
    """The same iteration without its rounding."""
    return doubling(run, learner="eigenvalues")


@exponentially_more.control("a learner that takes three gradient steps at every stage is matched by a few more steps")
def exponentially_more_control(run: Run) -> Samples:
    """A first-order learner with as many stages."""
    return doubling(run, learner="descent")


def ill_conditioned(run: Run, *, learner: str) -> Samples:
    """Squared errors per the zero predictor's where half of the covariance's eigenvalues are 100 and half are 1."""
    episodes = run.setting("episodes", smoke=64, cpu=1024)

    def one(seed: int) -> OneSeed:
        drawn = run.sample(TASK, episodes, seed=seed)
        scales = torch.ones(NUM_FEATURES, dtype=drawn.x.dtype)
        scales[: NUM_FEATURES // 2] = 10
        # y = w.x with the scale taken from w, so that flat directions count as much as steep ones.
        x, y = drawn.x * scales, drawn.y
        p = Asked(x[:, :-1], y[:, :-1], x[:, -1:], y[:, -1:])
        if learner == "newton":
            said = long_newton(p)
        elif learner == "least squares":
            said = [(p.queries @ torch.linalg.lstsq(p.x, p.y.unsqueeze(-1)).solution).squeeze(-1)]
        else:
            said = descent(p, steps=200, rate_over=1.9)
        zero = p.targets.square().mean(1)
        errors = torch.stack([(part - p.targets).square().mean(1) for part in said])
        return OneSeed(
            values=errors[-1],
            per=zero,
            errors=errors[-1],
            zero_errors=zero,
            curves={learner: (range(1, len(said) + 1), errors.mean(1) / zero.mean())},
        )

    return over_seeds(run, one)


def long_newton(p: Asked) -> list[Tensor]:
    """Twenty-five of Newton's iterations."""
    values, vectors = torch.linalg.eigh(p.x.mT @ p.x)
    left = 1 - start(p).squeeze(-1) * values.square()
    moment = vectors.mT @ (p.x.mT @ p.y.unsqueeze(-1))
    filters = [(1 - left ** (2**k)) / values for k in range(26)]
    return [(p.queries @ (vectors @ (f.unsqueeze(-1) * moment))).squeeze(-1) for f in filters]


@claim(
    "On ill-conditioned inputs a few of Newton's iterations solve what gradient descent leaves unsolved.",
    threshold=0.01,
    direction="below",
    why="one hundredth of the zero predictor's squared error counts as solved",
    axes=Axes(x="iterations or steps", y="squared error over the zero predictor's", log_x=True, log_y=True, rule=True),
)
def conditioning(run: Run) -> Samples:
    """Twenty-five iterations at a condition number of the covariance of 100."""
    return ill_conditioned(run, learner="newton")


@conditioning.reference("least squares on the same examples")
def conditioning_reference(run: Run) -> Samples:
    """The solution."""
    return ill_conditioned(run, learner="least squares")


@conditioning.control("two hundred gradient steps at nearly the largest stable rate do not")
def conditioning_descent(run: Run) -> Samples:
    """A first-order method with eight times as many steps."""
    return ill_conditioned(run, learner="gradient descent")
