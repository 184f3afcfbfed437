r"""Gradient descent on the mean squared error of the context, from w = 0:

    w <- w + rate * (1/n) X'(y - X w),  `steps` times

With rate 1/L, L the largest eigenvalue of X'X / n, no step overshoots. One step with the rate tuned over a distribution
of tasks is what a trained layer of linear self-attention does (von Oswald et al. 2023); for x ~ N(0, I) that rate is
1 / (1 + (d + 1)/n) and leaves (d + 1)/(n + d + 1) of the zero predictor's error.
Shapes: x [batch, time, features]; y [batch, time]; weights [batch, prefixes, features].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.inputs import blocks
from contexture.protocols import LearnerCard, Pairs


@dataclass(frozen=True, slots=True)
class GradientDescent(LinearLearner):
    """A fixed number of gradient steps, at a given rate or at one over the largest curvature of the context.

    `rate` is in units of the gradient of half the mean squared error; None takes 1/L of each context.

    >>> x, y = torch.tensor([[[1.0], [1.0]]], dtype=torch.float64), torch.tensor([[2.0, 4.0]], dtype=torch.float64)
    >>> GradientDescent(steps=1, rate=0.5).weights(x, y).item()
    1.5
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="gd",
        summary="A fixed number of gradient steps on the context's squared error.",
        paper="von Oswald et al., Transformers learn in-context by gradient descent",
        year=2023,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    steps: int = 10
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"gd needs a number of steps of at least 0, but it is {self.steps}")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""
        time = x.shape[1]
        shown = torch.ones(time + 1, time, dtype=torch.bool, device=x.device).tril(-1)
        rates = prefix_rates(x) if self.rate is None else x.new_full((1, time + 1), self.rate)
        return descend(x, y, shown=shown, rates=rates, steps=self.steps)

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The weights after all of the examples."""
        shown = torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
        rates = largest_curvature_rate(x)[:, None] if self.rate is None else x.new_full((1, 1), self.rate)
        return descend(x, y, shown=shown, rates=rates, steps=self.steps)[:, 0]

    def tuned(self, episodes: Pairs, *, rates: Sequence[float]) -> "GradientDescent":
        """A copy whose rate has the smallest squared error on the last example of the given episodes."""
        x, y = episodes.x.to(torch.float64), episodes.y.to(torch.float64)
        errors = []
        for rate in rates:
            weights = replace(self, rate=rate).weights(x[:, :-1], y[:, :-1])
            errors.append(float((torch.einsum("bd,bd->b", x[:, -1], weights) - y[:, -1]).square().mean()))
        return replace(self, rate=rates[min(range(len(errors)), key=errors.__getitem__)])


def descend(
    x: Float[Tensor, "batch time features"],
    y: Float[Tensor, "batch time"],
    *,
    shown: Tensor,
    rates: Float[Tensor, "#batch prefixes"],
    steps: int,
    preconditioner: Float[Tensor, "#batch #prefixes features"] | Float[Tensor, "features features"] | None = None,
) -> Float[Tensor, "batch prefixes features"]:
    """Gradient steps for several contexts of each episode at once; `shown` [prefixes, time] says who sees what.

    A preconditioner multiplies the gradient: [.., features] as a diagonal, [features, features] as a matrix.
    """
    weights = x.new_zeros(x.shape[0], shown.shape[0], x.shape[2])
    scale = (rates / shown.sum(1).clamp_min(1))[..., None]
    for _ in range(steps):
        residual = (y[:, None] - weights @ x.mT) * shown
        gradient = residual @ x
        if preconditioner is not None:
            gradient = gradient @ preconditioner.mT if preconditioner.dim() == 2 else gradient * preconditioner
        weights = weights + scale * gradient
    return weights


def largest_curvature_rate(x: Float[Tensor, "batch time features"]) -> Float[Tensor, " batch"]:
    """1/L with L the largest eigenvalue of X'X / n; 1 where the context is empty or zero."""
    if x.shape[1] == 0:
        return x.new_ones(x.shape[0])
    curvature = torch.linalg.matrix_norm(x, ord=2).square() / x.shape[1]
    return torch.where(curvature > 0, 1 / curvature, 1)


def prefix_rates(x: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch prefixes"]:
    """1/L of every prefix, 0 to time inclusive."""
    batch, time, features = x.shape
    rates = x.new_ones(batch, time + 1)
    counts = torch.arange(1, time + 1, dtype=x.dtype, device=x.device)
    for block in blocks(batch, time * features**2):
        rows = x[block]
        moments = torch.cumsum(rows[..., :, None] * rows[..., None, :], dim=1)
        curvature = torch.linalg.eigvalsh(moments)[..., -1] / counts
        rates[block, 1:] = torch.where(curvature > 0, 1 / curvature, 1)
    return rates
