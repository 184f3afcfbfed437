r"""On the expressive power of a variant of the looped transformer: AlgoFormer (Gao et al. 2024).

Three parts with weights set by hand, as a human would write an algorithm:

    pre-transformer     x_j -> f(x_j) = B gelu(A x_j), the representation that the task is linear in
    looped transformer  one layer of linear attention, T times: w <- w + rate (1/n) C sum_j (y_j - w.f_j) f_j
    post-transformer    reads w.f(x)

Prompts hold y_j = w.f(x_j) with a new w each and one f for all (regression with representation). C is the inverse of
the second moment of f, which a trained layer would know. A standard transformer of as many parameters has one attention
layer, and a vanilla looped one has no representation.
Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, queries, features].
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.claims.asked import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, best_first_rate
from contexture.leaves.linear import Linear
from contexture.models.constructed import set_step
from contexture.models.self_attention import SelfAttention, SelfAttentionConfig, SelfAttentionModel
from contexture.tasks.draws import normal

PAPER = Paper(
    key="algoformer",
    title="On the Expressive Power of a Variant of the Looped Transformer",
    authors="Yihang Gao, Chuanyang Zheng, Enze Xie, Han Shi, Tianyang Hu, Yu Li, Michael K. Ng, Zhenguo Li, "
    "Zhaoqiang Liu",
    year=2024,
    arxiv="2402.13572",
    left_out={
        "trained on challenging tasks, it does better than the standard and the vanilla looped transformer": "needs "
        "transformers trained for hundreds of thousands of steps on four families of tasks",
    },
)

FEATURES, HIDDEN, SIZE, EXAMPLES, QUERIES, LOOPS = 4, 16, 8, 40, 8, 128
RATE = 0.35
"""In units of the whitened features: prompts of 40 examples have eigenvalues up to about 4 in that basis."""
SLOW = 0.1
"""The rate for prompts of sixteen examples, whose largest eigenvalues vary more."""


class Representation(NamedTuple):
    """f's two matrices, and the inverse of its second moment."""

    first: Tensor
    second: Tensor
    inverse: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """f(x)."""
        return F.gelu(x @ self.first.mT) @ self.second.mT


class Problem(NamedTuple):
    """Prompts, their representation, and other prompts of the same kind."""

    asked: Asked
    represent: Representation
    others: Asked


def problem(run: Run, seed: int, *, noise: float = 0.0, examples: int = EXAMPLES) -> Problem:
    """Regression with a representation that is drawn once for each seed."""
    episodes = run.setting("episodes", smoke=64, cpu=512)
    generator = run.generator(seed, "representation")
    first = normal(HIDDEN, FEATURES, generator=generator) / FEATURES**0.5
    second = normal(SIZE, HIDDEN, generator=generator) / HIDDEN**0.5
    found = F.gelu(normal(50_000, FEATURES, generator=generator) @ first.mT) @ second.mT
    represent = Representation(first, second, torch.linalg.inv(found.mT @ found / len(found)))

    def draw(batch: int, purpose: str) -> Asked:
        generator = run.generator(seed, "prompts", purpose)
        x = normal(batch, examples + QUERIES, FEATURES, generator=generator)
        y = (represent(x) @ normal(batch, SIZE, 1, generator=generator)).squeeze(-1)
        y = y + noise * y.std() * normal(*y.shape, generator=generator)
        return Asked(x[:, :examples], y[:, :examples], x[:, examples:], y[:, examples:])

    return Problem(draw(episodes, "evaluate"), represent, draw(256, "fit"))


def transformer(
    represent: Representation | None, *, loops: int, rate: float, preconditioner: Tensor | None
) -> SelfAttentionModel:
    """A looped layer behind a representation, or over the inputs themselves."""
    embed = (HIDDEN, SIZE) if represent else ()
    config = SelfAttentionConfig(num_features=FEATURES, num_layers=loops, looped=True, embed=embed)
    model = SelfAttentionModel(config, generator=torch.Generator().manual_seed(0)).double()
    if represent:
        with torch.no_grad():
            for leaf, matrix in zip(model.embed, represent[:2], strict=True):
                assert isinstance(leaf, Linear)
                leaf.weight.copy_(matrix)
                assert leaf.bias is not None
                leaf.bias.zero_()
    layer = model.layers[0]
    assert isinstance(layer, SelfAttention)
    set_step(layer, rate=rate, preconditioner=preconditioner)
    return model.eval().requires_grad_(False)


def algoformer(drawn: Problem, *, rate: float = RATE) -> list[Tensor]:
    """What the three parts say after each loop."""
    represent = drawn.represent
    model = transformer(represent, loops=LOOPS, rate=rate, preconditioner=represent.inverse)
    return model.read_outs(*drawn.asked[:3])


def vanilla(drawn: Problem) -> list[Tensor]:
    """The loop over the inputs themselves, which are white as they come."""
    return transformer(None, loops=LOOPS, rate=RATE, preconditioner=None).read_outs(*drawn.asked[:3])


def standard(drawn: Problem) -> list[Tensor]:
    """The representation and one attention layer, at the rate that is best for it on other prompts."""
    represent, others = drawn.represent, drawn.others
    rate = best_first_rate(represent(others.x) @ represent.inverse, others.y, represent(others.queries), others.targets)
    return transformer(represent, loops=1, rate=rate, preconditioner=represent.inverse).read_outs(*drawn.asked[:3])


def descent(drawn: Problem) -> list[Tensor]:
    """The algorithm itself: preconditioned gradient descent on the representation."""
    p, represent = drawn.asked, drawn.represent
    shown, asked = represent(p.x), represent(p.queries)
    weights, said = shown.new_zeros(len(shown), SIZE, 1), []
    for _ in range(LOOPS):
        left = p.y.unsqueeze(-1) - shown @ weights
        weights = weights + RATE / p.x.shape[1] * (represent.inverse @ (shown.mT @ left))
        said.append((asked @ weights).squeeze(-1))
    return said


def least_squares(drawn: Problem) -> list[Tensor]:
    """Where the algorithm ends."""
    p, represent = drawn.asked, drawn.represent
    weights = torch.linalg.lstsq(represent(p.x), p.y.unsqueeze(-1)).solution
    return [(represent(p.queries) @ weights).squeeze(-1)]


Learner = Callable[[Problem], list[Tensor]]


def mirrors(run: Run, learner: Learner, name: str) -> Samples:
    """The largest relative difference to the algorithm over its steps."""

    def one(seed: int) -> OneSeed:
        drawn = problem(run, seed)
        return apart(drawn.asked, learner(drawn), descent(drawn), name)

    return over_seeds(run, one)


@claim(
    "A part before, a loop and a part after it carry out a human-designed algorithm: descent on a representation.",
    threshold=1e-10,
    direction="below",
    why="double precision leaves about 1e-14 after 128 contracting steps",
    axes=Axes(x="loops", y="difference from the algorithm, relative", log_y=True, rule=True),
)
def mirroring(run: Run) -> Samples:
    """One hundred and twenty-eight loops."""
    return mirrors(run, algoformer, "AlgoFormer")


@mirroring.reference("the algorithm in the coordinates in which the representation is white")
def mirroring_white(run: Run) -> Samples:
    """The rounding between two ways of writing it."""

    def white(drawn: Problem) -> list[Tensor]:
        root = torch.linalg.cholesky(drawn.represent.inverse)
        p = drawn.asked
        shown, asked = drawn.represent(p.x) @ root, drawn.represent(p.queries) @ root
        second, moment = shown.mT @ shown / p.x.shape[1], shown.mT @ p.y.unsqueeze(-1) / p.x.shape[1]
        weights, said = torch.zeros_like(moment), []
        for _ in range(LOOPS):
            weights = weights + RATE * (moment - second @ weights)
            said.append((asked @ weights).squeeze(-1))
        return said

    return mirrors(run, white, "white coordinates")


@mirroring.control("the vanilla looped transformer, without the first part, carries out another one")
def mirroring_vanilla(run: Run) -> Samples:
    """The same loop over the inputs."""
    return mirrors(run, vanilla, "vanilla looped")


def solves(run: Run, learner: Learner, name: str) -> Samples:
    """Squared errors over the zero predictor's after all loops; without a name no line is drawn."""

    def one(seed: int) -> OneSeed:
        drawn = problem(run, seed)
        said, targets = learner(drawn), drawn.asked.targets
        zero = targets.square().mean(1)
        errors = torch.stack([(part - targets).square().mean(1) for part in said])
        curves = {name: (range(1, len(said) + 1), errors.mean(1) / zero.mean())}
        return OneSeed(values=errors[-1], per=zero, errors=errors[-1], zero_errors=zero, curves=curves)

    return over_seeds(run, one)


SOLVED = "one hundredth of the zero predictor's squared error counts as solved"
BY_LOOP = Axes(x="loops", y="squared error over zero's", log_x=True, log_y=True, rule=True)


@claim(
    "With the parameters of a standard transformer of one attention layer it expresses an algorithm of many steps.",
    threshold=0.01,
    direction="below",
    why=SOLVED,
    axes=BY_LOOP,
)
def loops(run: Run) -> Samples:
    """After 128 loops of the one layer."""
    return solves(run, algoformer, "AlgoFormer")


@loops.reference("least squares on the representation")
def loops_reference(run: Run) -> Samples:
    """What endless loops would come to."""
    return solves(run, least_squares, "")


@loops.control("the standard transformer with the same parts, used once, does not solve the task")
def loops_standard(run: Run) -> Samples:
    """One step at its best rate."""
    return solves(run, standard, "standard")


@claim(
    "The part before the loop makes it more expressive than a vanilla looped transformer.",
    threshold=0.01,
    direction="below",
    why=SOLVED,
    axes=BY_LOOP,
)
def representation(run: Run) -> Samples:
    """A task that is linear in a representation, not in its inputs."""
    return solves(run, algoformer, "AlgoFormer")


@representation.reference("least squares on the representation")
def representation_reference(run: Run) -> Samples:
    """What endless loops would come to."""
    return solves(run, least_squares, "")


@representation.control("the vanilla looped transformer does not solve the task in as many loops")
def representation_vanilla(run: Run) -> Samples:
    """The same loop over the inputs."""
    return solves(run, vanilla, "vanilla looped")


NOISE, FEW = 0.5, 16


def beside_least_squares(run: Run, *, noise: float, ridge: bool = False, name: str = "") -> Samples:
    """Squared errors of the loop, stopped where it was best on other prompts, per those of least squares.

    With `ridge`, those of ridge regression whose penalty was best on other prompts.
    """

    def one(seed: int) -> OneSeed:
        drawn = problem(run, seed, noise=noise, examples=FEW)
        other = drawn._replace(asked=drawn.others)
        learner = penalised if ridge else partial(algoformer, rate=SLOW)
        said, tried = learner(drawn), learner(other)
        best = int(torch.stack([(part - other.asked.targets).square().mean() for part in tried]).argmin())
        targets = drawn.asked.targets
        errors = (said[best] - targets).square().mean(1)
        exact = (least_squares(drawn)[0] - targets).square().mean(1)
        curve = torch.stack([(part - targets).square().mean() for part in said]) / exact.mean()
        return OneSeed(
            values=errors,
            per=exact,
            errors=errors,
            zero_errors=targets.square().mean(1),
            curves={name: (range(1, LOOPS + 1), curve)},
        )

    return over_seeds(run, one)


def penalised(drawn: Problem) -> list[Tensor]:
    """Ridge regression on the white representation at sixteen penalties."""
    p, represent = drawn.asked, drawn.represent
    root = torch.linalg.cholesky(represent.inverse)
    shown, asked = represent(p.x) @ root, represent(p.queries) @ root
    second, moment = shown.mT @ shown, shown.mT @ p.y.unsqueeze(-1)
    identity = torch.eye(SIZE, dtype=p.x.dtype)
    return [
        (asked @ torch.linalg.solve(second + penalty * identity, moment)).squeeze(-1)
        for penalty in torch.logspace(-2, 2, 16).tolist()
    ]


@claim(
    "It can be smarter than the algorithm: with noise, loops fitted to their tasks do better than least squares.",
    threshold=0.9,
    direction="below",
    why="a tenth less error is more than the choice of the stop can give by chance",
    axes=Axes(x="loops", y="squared error over that of least squares", log_x=True, log_y=True, rule=True),
    leaves_out="a trained loop, which can fit more than the number of its turns",
    tried="a rate of 0.35 first: undecided (2.29), as on a few prompts of sixteen examples the loop diverged; then 0.1",
)
def smarter(run: Run) -> Samples:
    """Sixteen examples whose noise has half the size of the targets; the loops stop where it was best on others."""
    return beside_least_squares(run, noise=NOISE, name="with noise")


@smarter.reference("ridge regression with the penalty that was best on other prompts")
def smarter_reference(run: Run) -> Samples:
    """What is about the best for these tasks."""
    return beside_least_squares(run, noise=NOISE, ridge=True)


@smarter.control("without noise there is nothing that the algorithm gets wrong")
def smarter_without(run: Run) -> Samples:
    """The same loops and prompts."""
    return beside_least_squares(run, noise=0.01, name="with little noise")
