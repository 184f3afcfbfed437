r"""The closeness of in-context learning and weight shifting for softmax regression (Li, Song, Xia, Yu, Zhou 2023).

Softmax regression fits f(A, x) = softmax(A x) to a distribution b by |f(A, x) - b|^2 / 2. A shift of the weights x, or
of the data A, acts as a shift of b by the change of f. Since softmax changes by at most half of its argument,

    |f(A, x') - f(A, x)| <= R/2 |x' - x|,      |f(A', x) - f(A, x)| <= R/2 |A' - A|,      |A|, |x| <= R

in spectral norms. The paper's own factor, n^1.5 exp(10 R^2), is far above R/2. A gradient step moves x by
-sum_j c_j a_j with c = rate (diag f - f f')(f - b), and a layer of linear self-attention over rows with queries and
keys a_i and values -c_j x' / |x|^2 moves A so that A' x = A x'. Settings are ours.
Shapes: A [episodes, n, features], rows a_i; x [episodes, features]; b, f [episodes, n].
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, best_first_rate, difference
from contexture.models.self_attention import WEIGHTS
from contexture.tasks.draws import normal

PAPER = Paper(
    key="softmax-regression-icl",
    title="The Closeness of In-Context Learning and Weight Shifting for Softmax Regression",
    authors="Shuai Li, Zhao Song, Yu Xia, Tong Yu, Tianyi Zhou",
    year=2023,
    arxiv="2304.13276",
)

NUM_FEATURES, ROWS = 4, 8
RADII = (0.25, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """Prompts of norm R, with softmax or with the bare exponential as what is fitted."""

    radius: float = 1.0
    normalised: bool = True

    def f(self, scores: Tensor) -> Tensor:
        """What is fitted, of A x."""
        return scores.softmax(-1) if self.normalised else scores.exp()

    def slope(self, value: Tensor) -> Tensor:
        """The derivative of f by A x, [episodes, n, n]."""
        diagonal = torch.diag_embed(value)
        return diagonal - value[:, :, None] * value[:, None] if self.normalised else diagonal

    def draw(self, batch: int, *, generator: torch.Generator) -> "Prompt":
        """Data and weights of norm R in random directions; b is what other such weights say."""
        data = normal(batch, ROWS, NUM_FEATURES, generator=generator)
        data = self.radius * data / torch.linalg.matrix_norm(data, 2)[:, None, None]
        x, other = self.radius * torch.nn.functional.normalize(
            normal(2, batch, NUM_FEATURES, generator=generator), dim=2
        )
        value, target = self.f(scores(data, x)), self.f(scores(data, other))
        derivative = self.slope(value) @ data
        # The step of Gauss and Newton along the gradient, so that both kinds of regression take steps of their size.
        rate = 1 / torch.linalg.matrix_norm(derivative, 2).square()
        shares = rate[:, None] * (self.slope(value) @ (value - target).unsqueeze(2)).squeeze(2)
        return Prompt(data, x, target, value, derivative, shares)


class Prompt(NamedTuple):
    """One problem with the weights as they stand: f, its derivative by x, and the c_j of a gradient step."""

    data: Tensor
    x: Tensor
    target: Tensor
    value: Tensor
    derivative: Tensor
    shares: Tensor


def scores(data: Tensor, x: Tensor) -> Tensor:
    """A x."""
    return (data @ x.unsqueeze(2)).squeeze(2)


def shifted_weights(p: Prompt) -> Tensor:
    """x after one gradient step."""
    return p.x - scores(p.data.mT, p.shares)


def shifted_data(p: Prompt, *, weights: str) -> Tensor:
    """A after one layer of self-attention over its rows, whose values are the c_j less their mean, along x."""
    weigh = WEIGHTS[weights]
    values = (p.shares - p.shares.mean(1, keepdim=True)).unsqueeze(2) * p.x.unsqueeze(1)
    reads = weigh((p.data @ p.data.mT).unsqueeze(1)).squeeze(1) @ values
    shifted: Tensor = p.data - ROWS * reads / p.x.square().sum(1)[:, None, None]
    return shifted


def size(change: Tensor) -> Tensor:
    """The length of each row."""
    length: Tensor = torch.linalg.vector_norm(change, dim=1)
    return length


Moved = Literal["weights", "data", "derivative"]


def largest(run: Run, moved: Moved, *, normalised: bool = True, name: str = "") -> Samples:
    """The largest change of f over all prompts of a seed, per R/2 times the shift's norm.

    "derivative" takes the norm of the derivative itself in place of a shift's effect. Errors are those of f after the
    shift, beside those before it.
    """
    episodes = run.setting("episodes", smoke=512, cpu=8192)

    def one(seed: int) -> OneSeed:
        found = {}
        for radius in RADII:
            regression = Regression(radius=radius, normalised=normalised)
            p = regression.draw(episodes, generator=run.generator(seed, "evaluate", str(radius)))
            if moved == "weights":
                x = shifted_weights(p)
                after, shift = regression.f(scores(p.data, x)), size(x - p.x)
            elif moved == "data":
                data = shifted_data(p, weights="softmax")
                after, shift = regression.f(scores(data, p.x)), torch.linalg.matrix_norm(data - p.data, 2)
            else:
                after, shift = p.value, torch.ones(episodes, dtype=torch.float64)
            change = torch.linalg.matrix_norm(p.derivative, 2) if moved == "derivative" else size(after - p.value)
            ratio = change / (radius / 2 * shift)
            found[radius] = (ratio.max(), size(after - p.target).square(), size(p.value - p.target).square())
        highest, errors, before = found[RADII[-1]]
        curve = torch.stack([ratio for ratio, _, _ in found.values()])
        return OneSeed(
            values=highest.unsqueeze(0),
            errors=errors,
            zero_errors=before,
            curves={name: (RADII, curve)},
        )

    return over_seeds(run, one)


BY_RADIUS = Axes(x="R, the norm of data and weights", y="largest change over the bound", log_y=True, rule=True)
BOUND = "one is the bound R/2 itself, below the paper's for every R and n; softmax gives its slope of 1/2 at most"


@claim(
    "What a gradient step on softmax regression does to its predictions is bounded by the shift of the weights.",
    threshold=1.0,
    direction="below",
    why=BOUND,
    spread="seeds",
    axes=BY_RADIUS,
)
def weights_bound(run: Run) -> Samples:
    """The worst of all prompts."""
    return largest(run, "weights", name="softmax")


@weights_bound.reference("the norm of the derivative, which bounds every small shift")
def weights_bound_derivative(run: Run) -> Samples:
    """The worst direction instead of the gradient's."""
    return largest(run, "derivative", name="softmax, worst direction")


@weights_bound.control("without the normaliser of softmax it is not")
def weights_bound_exponential(run: Run) -> Samples:
    """A step of its own on the same loss for exp(A x)."""
    return largest(run, "weights", normalised=False, name="exponential")


@claim(
    "What a layer of self-attention does to these predictions is bounded alike by its shift of the data.",
    threshold=1.0,
    direction="below",
    why=BOUND,
    spread="seeds",
    axes=BY_RADIUS,
)
def data_bound(run: Run) -> Samples:
    """A layer of softmax attention over the rows of A."""
    return largest(run, "data", name="softmax")


@data_bound.reference("the norm of the derivative, which bounds every small shift")
def data_bound_derivative(run: Run) -> Samples:
    """Data along x is moved as x is moved along the data: |x| is R."""
    return largest(run, "derivative", name="softmax, worst direction")


@data_bound.control("without the normaliser of softmax it is not")
def data_bound_exponential(run: Run) -> Samples:
    """The same layer before exp(A x)."""
    return largest(run, "data", normalised=False, name="exponential")


def apart(run: Run, *, weights: str) -> Samples:
    """How far the predictions after a layer's shift are from those after the gradient step, per what the step did."""
    episodes = run.setting("episodes", smoke=512, cpu=8192)
    regression = Regression()

    def one(seed: int) -> OneSeed:
        p = regression.draw(episodes, generator=run.generator(seed, "evaluate"))
        wanted = regression.f(scores(p.data, shifted_weights(p)))
        if weights == "powers":
            # The same step from the products of rows, without ever forming the weights.
            moved = (p.data @ p.data.mT @ p.shares.unsqueeze(2)).squeeze(2)
            said = regression.f(scores(p.data, p.x) - moved)
        else:
            said = regression.f(scores(shifted_data(p, weights=weights), p.x))
        return OneSeed(
            values=size(said - wanted),
            per=size(wanted - p.value),
            errors=size(said - p.target).square(),
            zero_errors=size(p.value - p.target).square(),
        )

    return over_seeds(run, one)


@claim(
    "One layer of linear self-attention shifts the data so that they say what they would after the gradient step.",
    threshold=1e-10,
    direction="below",
    why="both sides are sums of some ten products in double precision",
)
def same_shift(run: Run) -> Samples:
    """Values set by hand to the c_j of the step."""
    return apart(run, weights="linear")


@same_shift.reference("the step written with the products of rows alone")
def same_shift_products(run: Run) -> Samples:
    """The rounding between two ways of writing the step."""
    return apart(run, weights="powers")


@same_shift.control("with softmax for its weights the layer comes near, but not there")
def same_shift_softmax(run: Run) -> Samples:
    """The same layer but for what weighs the rows."""
    return apart(run, weights="softmax")


IN_CONTEXT = 64
SMALL, LARGE = 0.05, 0.25
SIZES = (0.05, 0.1, 0.15, 0.25)


def ask_rows(batch: int, *, scale: float, generator: torch.Generator) -> Asked:
    """Rows a_j with n b_j - 1, their distance from uniform, and a further row whose share is asked for."""
    rows = scale * normal(batch, IN_CONTEXT + 1, NUM_FEATURES, generator=generator)
    x = normal(batch, NUM_FEATURES, generator=generator)
    raised = scores(rows, x).exp()
    y = raised / raised[:, :IN_CONTEXT].mean(1, keepdim=True) - 1
    return Asked(rows[:, :-1], y[:, :-1], rows[:, -1:], y[:, -1:])


def products(p: Asked) -> Tensor:
    """All products that a layer of linear self-attention can combine."""
    tokens = torch.cat((p.x, p.y.unsqueeze(2)), 2)
    second = tokens.mT @ tokens / tokens.shape[1]
    first, other = torch.triu_indices(tokens.shape[2], tokens.shape[2])
    return (second[:, first, other].unsqueeze(2) * p.queries).flatten(1)


def gradient_step(p: Asked, *, rate: float) -> Tensor:
    """What softmax regression says of the query after one gradient step from x = 0, where f is uniform."""
    x = rate * scores(p.x.mT, p.y) / p.x.shape[1]
    return (p.queries @ x.unsqueeze(2)).squeeze(2).exp() / scores(p.x, x).exp().mean(1, keepdim=True) - 1


def learnt(run: Run, *, scale: float, layer: bool = True, name: str = "") -> Samples:
    """The squared difference between the best layer over many prompts and the best gradient step, per its square.

    Without `layer` the step is held against one whose rate was found on other prompts.
    """
    fitted = run.setting("prompts fitted", smoke=10_000, cpu=50_000)
    episodes = run.setting("episodes", smoke=2048, cpu=8192)
    along = run.setting("sizes drawn", smoke=(SMALL, LARGE), cpu=SIZES) if name else ()

    def one(seed: int) -> OneSeed:
        def compared(scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            fit, other, p = (
                ask_rows(count, scale=scale, generator=run.generator(seed, purpose))
                for count, purpose in ((fitted, "fit"), (fitted, "other"), (episodes, "evaluate"))
            )
            wanted = gradient_step(p, rate=best_first_rate(*other))
            if layer:
                said = products(p) @ torch.linalg.lstsq(products(fit), fit.targets).solution
            else:
                said = gradient_step(p, rate=best_first_rate(*fit))
            return (*difference(said, wanted), *difference(said, p.targets))

        distance, per, errors, zero = compared(scale)
        curve = [top.mean() / bottom.mean() for top, bottom, _, _ in map(compared, along)]
        curves = {name: (along, torch.stack(curve))} if curve else {}
        return OneSeed(values=distance, per=per, errors=errors, zero_errors=zero, curves=curves)

    return over_seeds(run, one)


@claim(
    "So the layer that is best at softmax regression in context and the model that a gradient step learns are alike.",
    threshold=0.05,
    direction="below",
    why="one part in 64 is what a layer without a mean over the context cannot follow; larger inputs part them",
    leaves_out="the paper compares models trained in practice; here the best layer is found by least squares",
    axes=Axes(x="size of the inputs", y="squared difference over the step's square", log_y=True, rule=True),
)
def alike(run: Run) -> Samples:
    """Inputs of size .05: scores of about a tenth."""
    return learnt(run, scale=SMALL, name="best layer")


@alike.reference("the gradient step, its rate found on other prompts")
def alike_step(run: Run) -> Samples:
    """The step against itself."""
    return learnt(run, scale=SMALL, layer=False)


@alike.control("for inputs five times as large, where the bounds are wide, they are not")
def alike_large(run: Run) -> Samples:
    """The same layer and step on inputs of size .25."""
    return learnt(run, scale=LARGE)
