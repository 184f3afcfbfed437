r"""Preconditioned gradient descent on the context's mean squared error, from w = 0:

    w <- w + rate * P (1/n) X'(y - X w),  `steps` times

With P the inverse covariance of x (or Gamma^-1 = (S + (S + tr(S) I)/N)^-1 for training length N) one step is the best
that one layer of linear self-attention can do on anisotropic inputs (Ahn et al. 2023; Zhang, Frei and Bartlett 2024).
Without a given P it is Jacobi's: the inverse diagonal of the context's own X'X / n.
Shapes: x [batch, time, features]; y [batch, time]; P [features, features].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.gradient_descent import descend
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.inputs import blocks
from contexture.protocols import LearnerCard


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PreconditionedGradientDescent(LinearLearner):
    """Gradient steps that a symmetric positive definite matrix stretches.

    `rate` is in units of the preconditioned gradient of half the mean squared error; None takes one over the largest
    eigenvalue of P X'X / n of each context.

    >>> x = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    >>> PreconditionedGradientDescent(steps=1).weights(x, torch.tensor([[4.0, 3.0]], dtype=torch.float64))
    tensor([[2.0000, 3.0000]], dtype=torch.float64)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="preconditioned-gd",
        summary="Gradient steps stretched by a matrix; by default the inverse second moments of the columns.",
        paper="Ahn et al., Transformers learn to implement preconditioned gradient descent for in-context learning",
        year=2023,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    steps: int = 10
    rate: float | None = None
    preconditioner: Float[Tensor, "features features"] | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"preconditioned-gd needs a number of steps of at least 0, but it is {self.steps}")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""
        batch, time, features = x.shape
        shown = torch.ones(time + 1, time, dtype=torch.bool, device=x.device).tril(-1)
        weights = x.new_zeros(batch, time + 1, features)
        for block in blocks(batch, (time + 1) * features**2):
            rows = x[block]
            moments = torch.cumsum(rows[..., :, None] * rows[..., None, :], dim=1)
            moments = (
                torch.cat([torch.zeros_like(moments[:, :1]), moments], dim=1)
                if time
                else moments.new_zeros(rows.shape[0], 1, features, features)
            )
            moments = moments / shown.sum(1).clamp_min(1)[:, None, None]
            weights[block] = self._descend(rows, y[block], shown, moments)
        return weights

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The weights after all of the examples."""
        shown = torch.ones(1, x.shape[1], dtype=torch.bool, device=x.device)
        moments = (x.mT @ x / max(1, x.shape[1]))[:, None]
        return self._descend(x, y, shown, moments)[:, 0]

    def _descend(
        self, x: Tensor, y: Tensor, shown: Tensor, moments: Float[Tensor, "batch prefixes features features"]
    ) -> Float[Tensor, "batch prefixes features"]:
        if self.preconditioner is None:
            diagonal = moments.diagonal(dim1=-2, dim2=-1)
            stretch = torch.where(diagonal > 0, 1 / diagonal, 0)
            root = torch.diag_embed(stretch.sqrt())
        else:
            stretch = self.preconditioner.to(x)
            root = torch.linalg.cholesky(stretch)
        if self.rate is None:
            curvature = torch.linalg.eigvalsh(root.mT @ moments @ root)[..., -1]
            rates = torch.where(curvature > 0, 1 / curvature, 1)
        else:
            rates = x.new_full((1, shown.shape[0]), self.rate)
        return descend(x, y, shown=shown, rates=rates, steps=self.steps, preconditioner=stretch)
