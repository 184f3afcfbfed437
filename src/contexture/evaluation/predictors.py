r"""Comparing a predictor with algorithms: what it predicts, which weights that amounts to, how it bends to its query.

    squared prediction difference   (a(x) - b(x))^2, beside b(x)^2           Akyurek et al. 2022, arXiv:2211.15661
    induced weights                 the least-squares fit of w.x to a(x) over fresh x, with its R^2
    sensitivity                     d a(x) / d x                             von Oswald et al. 2022, arXiv:2212.07677
    best-matching step              argmin_k of the difference to an algorithm after k steps
    similarity of errors            the cosine between two predictors' errors  Fu et al. 2023, arXiv:2310.17086

A predictor is a function from a context and queries to predictions, so that models, learners and constructions compare
alike. Shapes: x [batch, time, features], y [batch, time], queries [batch, queries, features].
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.learners.classical.linear import LinearLearner
from contexture.protocols import Pairs

Predictor = Callable[
    [
        Float[Tensor, "batch time features"],
        Float[Tensor, "batch time"],
        Float[Tensor, "batch queries features"],
    ],
    Float[Tensor, "batch queries"],
]


class Asked(NamedTuple):
    """Prompts: examples x, y, and queries with the targets that nobody is shown."""

    x: Tensor
    y: Tensor
    queries: Tensor
    targets: Tensor


def ask(pairs: Pairs, *, num_queries: int = 1) -> Asked:
    """Episodes whose last examples are the queries."""
    shown = pairs.time - num_queries
    return Asked(pairs.x[:, :shown], pairs.y[:, :shown], pairs.x[:, shown:], pairs.y[:, shown:])


def linear_predictor(learner: LinearLearner) -> Predictor:
    """A linear learner as a predictor."""

    def predict(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
        return (queries @ learner.weights(x, y).unsqueeze(-1)).squeeze(-1)

    return predict


def difference(
    first: Float[Tensor, "batch queries"], second: Float[Tensor, "batch queries"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Each episode's mean (a - b)^2 and mean b^2; their ratio over episodes says how far a is from b.

    >>> difference(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    (tensor([2.]), tensor([8.5000]))
    """
    return (first - second).square().mean(1), second.square().mean(1)


def best_first_rate(
    x: Float[Tensor, "batch time features"],
    y: Float[Tensor, "batch time"],
    queries: Float[Tensor, "batch queries features"],
    targets: Float[Tensor, "batch queries"],
) -> float:
    """The rate at which one gradient step from zero has the least squared error on the queries, in closed form.

    In units of the gradient of half the mean squared error, as `GradientDescent`'s.
    """
    unit = (queries @ (x.mT @ y.unsqueeze(-1))).squeeze(-1) / x.shape[1]
    return float((targets * unit).sum() / unit.square().sum())


class Induced(NamedTuple):
    """The weights [batch, features] that predictions amount to, and the share of their variance that these explain."""

    weights: Tensor
    r_squared: Tensor


def induced_weights(
    predictor: Predictor,
    x: Float[Tensor, "batch time features"],
    y: Float[Tensor, "batch time"],
    probes: Float[Tensor, "batch probes features"],
) -> Induced:
    """Fit w.x by least squares to what the predictor says of fresh inputs after each context."""
    said = predictor(x, y, probes)
    weights = torch.linalg.lstsq(probes, said.unsqueeze(-1)).solution.squeeze(-1)
    left = (said - (probes @ weights.unsqueeze(-1)).squeeze(-1)).square().sum(1)
    total = (said - said.mean(1, keepdim=True)).square().sum(1)
    return Induced(weights, 1 - left / total.clamp_min(torch.finfo(said.dtype).tiny))


def sensitivity(
    predictor: Predictor,
    x: Float[Tensor, "batch time features"],
    y: Float[Tensor, "batch time"],
    queries: Float[Tensor, "batch queries features"],
) -> Float[Tensor, "batch queries features"]:
    """How each prediction moves with its own query."""
    with torch.enable_grad():
        asked = queries.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(predictor(x, y, asked).sum(), asked)
    return gradient


def cosine(first: Float[Tensor, "batch size"], second: Float[Tensor, "batch size"]) -> Float[Tensor, " batch"]:
    """The cosine of each pair of rows: of errors, of weights, of sensitivities.

    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([0.6000])
    """
    return torch.nn.functional.cosine_similarity(first, second, dim=1)


def best_matching_step(
    predictions: Sequence[Float[Tensor, "batch queries"]], steps: Sequence[Float[Tensor, "batch queries"]]
) -> Int[Tensor, " layers"]:
    """For each of a model's read-outs, the index of the algorithm's step whose predictions are nearest."""
    distances = torch.stack([torch.stack([(a - b).square().mean() for b in steps]) for a in predictions])
    return distances.argmin(1)
