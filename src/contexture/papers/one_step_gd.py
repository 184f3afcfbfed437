r"""One step of gradient descent is the optimal one layer of linear self-attention (Mahankali, Hashimoto, Ma 2023).

Whatever its weights, such a layer predicts a linear combination of the cubic features

    phi_abc = (1/n) sum_j e_ja e_jb x_c,     e_j = (x_j, y_j), x the query

(with the rank of the weights relaxed away). So the best of all combinations bounds every layer, and where the best
combination is a gradient step, that step is the optimal layer. It is found here by least squares over many prompts:
nothing is trained.
Shapes: x [episodes, examples, features], y [episodes, examples], queries [episodes, 1, features].
"""

from functools import partial

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.evaluation.predictors import Asked, best_first_rate, difference
from contexture.tasks.draws import normal

PAPER = Paper(
    key="one-step-gd",
    title="One Step of Gradient Descent is Provably the Optimal In-Context Learner with One Layer of Linear "
    "Self-Attention",
    authors="Arvind Mahankali, Tatsunori B. Hashimoto, Tengyu Ma",
    year=2023,
    arxiv="2307.03576",
    uses=("gd", "preconditioned-gd"),
)

NUM_FEATURES, EXAMPLES, NOISE = 5, 20, 0.5
VARIANCES = (2.0, 1.5, 1.0, 0.5, 0.25)
CLOSE = "fitting 105 coefficients to 20,000 prompts leaves up to 2 % of the step's square; other steps are 6 % away"


def linear(x: Tensor, generator: torch.Generator) -> Tensor:
    """y = w.x + noise, w ~ N(0, I)."""
    w = normal(x.shape[0], x.shape[2], 1, generator=generator)
    return (x @ w).squeeze(-1) + NOISE * normal(*x.shape[:2], generator=generator)


def rotated_network(x: Tensor, generator: torch.Generator) -> Tensor:
    """y = a.relu(W x) / sqrt(5): a nonlinear function whose distribution no rotation of x changes."""
    hidden = 10
    inner = normal(x.shape[0], x.shape[2], hidden, generator=generator)
    outer = normal(x.shape[0], hidden, 1, generator=generator)
    return ((x @ inner).relu() @ outer).squeeze(-1) / 5**0.5


def lopsided_cubic(x: Tensor, generator: torch.Generator) -> Tensor:
    """y = w.x^3 / 4 with the first coordinate three times as strong: rotations change its distribution."""
    w = normal(x.shape[0], x.shape[2], 1, generator=generator)
    w[:, 0] *= 3
    return (x**3 @ w).squeeze(-1) / 4


TARGETS = {"linear": linear, "network": rotated_network, "lopsided cubic": lopsided_cubic}


def draw(batch: int, *, targets: str, variances: tuple[float, ...], generator: torch.Generator) -> Asked:
    """Prompts of twenty examples and a query, every coordinate of x with a variance of its own."""
    x = normal(batch, EXAMPLES + 1, NUM_FEATURES, generator=generator)
    x = x * torch.tensor(variances, dtype=x.dtype).sqrt()
    y = TARGETS[targets](x, generator)
    return Asked(x[:, :-1], y[:, :-1], x[:, -1:], y[:, -1:])


def features(p: Asked) -> Tensor:
    """All products that a layer can combine, [episodes, 105]: symmetric in a and b."""
    tokens = torch.cat((p.x, p.y.unsqueeze(-1)), 2)
    second = tokens.mT @ tokens / tokens.shape[1]
    rows, columns = torch.triu_indices(second.shape[1], second.shape[2])
    return (second[:, rows, columns].unsqueeze(-1) * p.queries).flatten(1)


def best_layer(p: Asked) -> Tensor:
    """The coefficients of the best combination, by least squares."""
    cubic = features(p)
    solution: Tensor = torch.linalg.solve(cubic.mT @ cubic, cubic.mT @ p.targets)
    return solution


def step_direction(p: Asked) -> Tensor:
    """The direction of a first gradient step, [episodes, features]."""
    return (p.x.mT @ p.y.unsqueeze(-1)).squeeze(-1) / p.x.shape[1]


def best_step(fit: Asked, p: Asked, *, preconditioned: bool) -> Tensor:
    """The best single step found on the prompts `fit`, with a rate for each coordinate or one for all."""
    if not preconditioned:
        return best_first_rate(*fit) * (p.queries @ step_direction(p).unsqueeze(-1)).squeeze(-1)
    products = step_direction(fit) * fit.queries[:, 0]
    rates: Tensor = torch.linalg.solve(products.mT @ products, products.mT @ fit.targets)
    return (step_direction(p) * p.queries[:, 0]) @ rates


def gap(
    run: Run, *, targets: str, variances: tuple[float, ...] = (1.0,) * NUM_FEATURES, step: str, layer: bool = True
) -> Samples:
    """How far the best combination of features is from the best step, over the step's own square.

    Without `layer` the step is held against one fitted to other prompts: what fitting alone leaves.
    """
    episodes = run.setting("episodes", smoke=2048, cpu=8192)
    fitted = run.setting("prompts fitted", smoke=20_000, cpu=100_000)

    def one(seed: int) -> OneSeed:
        drawn = partial(draw, targets=targets, variances=variances)
        fit = drawn(fitted, generator=run.generator(seed, "fit"))
        other = drawn(fitted, generator=run.generator(seed, "other"))
        p = drawn(episodes, generator=run.generator(seed, "evaluate"))
        wanted = best_step(other, p, preconditioned=step == "preconditioned")
        said = features(p) @ best_layer(fit) if layer else best_step(fit, p, preconditioned=step == "preconditioned")
        distance, size = difference(said, wanted)
        return OneSeed(
            values=distance,
            per=size,
            errors=(wanted - p.targets).square().mean(1),
            zero_errors=p.targets.square().mean(1),
        )

    return over_seeds(run, one)


@claim(
    "For isotropic Gaussian inputs and noisy linear targets the best layer is one step of gradient descent.",
    threshold=0.03,
    direction="below",
    why=CLOSE,
)
def isotropic(run: Run) -> Samples:
    """The best of all combinations against the best step."""
    return gap(run, targets="linear", step="plain")


@isotropic.reference("the best step, fitted to other prompts")
def isotropic_reference(run: Run) -> Samples:
    """The same step from two samples of prompts."""
    return gap(run, targets="linear", step="plain", layer=False)


@isotropic.control("for inputs of unequal variances the best layer is not a plain step")
def isotropic_control(run: Run) -> Samples:
    """The same but for the inputs' covariance."""
    return gap(run, targets="linear", variances=VARIANCES, step="plain")


@claim(
    "For inputs of unequal variances the best layer is one preconditioned step of gradient descent.",
    threshold=0.03,
    direction="below",
    why=CLOSE,
)
def anisotropic(run: Run) -> Samples:
    """The best of all combinations against the best step with a rate for each principal direction."""
    return gap(run, targets="linear", variances=VARIANCES, step="preconditioned")


@anisotropic.reference("the best preconditioned step, fitted to other prompts")
def anisotropic_reference(run: Run) -> Samples:
    """The same step from two samples of prompts."""
    return gap(run, targets="linear", variances=VARIANCES, step="preconditioned", layer=False)


@anisotropic.control("a step with one rate for all directions is not it")
def anisotropic_control(run: Run) -> Samples:
    """The same inputs without the preconditioner."""
    return gap(run, targets="linear", variances=VARIANCES, step="plain")


@claim(
    "When only the targets change, to nonlinear functions that no rotation of the inputs changes, the best layer is "
    "still one step of gradient descent on the linear loss.",
    threshold=0.03,
    direction="below",
    why=CLOSE,
)
def nonlinear(run: Run) -> Samples:
    """Random networks as targets."""
    return gap(run, targets="network", step="plain")


@nonlinear.reference("the best step, fitted to other prompts")
def nonlinear_reference(run: Run) -> Samples:
    """The same step from two samples of prompts."""
    return gap(run, targets="network", step="plain", layer=False)


@nonlinear.control("for nonlinear functions that favour one coordinate it is not")
def nonlinear_control(run: Run) -> Samples:
    """Targets that rotations do change."""
    return gap(run, targets="lopsided cubic", step="plain")
