r"""The Lasso: argmin_w  |y - X w|^2 / (2 n) + alpha |w|_1 over the first n examples.

Coordinate descent on every prefix at once: w_j <- soft(x_j . r_j, n alpha) / |x_j|^2 with r_j the residual without
column j, as x_j . r_j = b_j - S_j . w + S_jj w_j from S = X'X and b = X'y. When no coordinate moves any more, the
weights off zero solve S w = b - n alpha sign(w) exactly.
Tibshirani (1996); Friedman, Hastie and Tibshirani (2010). Shapes: x [batch, time, features]; y [batch, time];
S [problems, features, features]; b, w [problems, features].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.inputs import blocks
from contexture.protocols import LearnerCard

SWEEPS = 20_000
STILL = 1e-13
"""A problem is solved when no coordinate moves by more than this share of the largest."""


@dataclass(frozen=True, slots=True)
class Lasso(LinearLearner):
    """Least squares with a penalty on the absolute weights; InputError unless alpha is positive.

    >>> x, y = torch.tensor([[[1.0], [1.0]]], dtype=torch.float64), torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    >>> Lasso(alpha=0.5).weights(x, y).item()
    1.5
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="lasso",
        summary="Least squares with a penalty on the absolute size of the weights.",
        paper="Tibshirani, Regression shrinkage and selection via the lasso",
        year=1996,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise InputError(f"lasso needs a positive alpha, but it is {self.alpha}: use ols for none")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples; zero before any."""
        batch, time, features = x.shape
        weights = x.new_zeros(batch, time + 1, features)
        thresholds = self.alpha * torch.arange(1, time + 1, dtype=x.dtype, device=x.device)
        for block in blocks(batch, time * features**2):
            rows = x[block]
            second = torch.cumsum(rows[..., :, None] * rows[..., None, :], dim=1)
            moment = torch.cumsum(y[block, :, None] * rows, dim=1)
            solved = coordinate_descent(second.flatten(0, 1), moment.flatten(0, 1), thresholds.repeat(rows.shape[0]))
            weights[block, 1:] = solved.reshape(moment.shape)
        return weights

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The weights after all of the examples."""
        thresholds = x.new_full((x.shape[0],), self.alpha * x.shape[1])
        return coordinate_descent(x.mT @ x, torch.einsum("btd,bt->bd", x, y), thresholds)


def coordinate_descent(
    second: Float[Tensor, "problems features features"],
    moment: Float[Tensor, "problems features"],
    thresholds: Float[Tensor, " problems"],
) -> Float[Tensor, "problems features"]:
    """argmin_w  w'Sw / 2 - b'w + threshold |w|_1 of many problems; each leaves when it is solved."""
    weights = torch.zeros_like(moment)
    left = torch.arange(moment.shape[0], device=moment.device)
    for _ in range(SWEEPS):
        if not len(left):
            break
        before = weights[left]
        after = _sweep(second[left], moment[left], thresholds[left], before)
        weights[left] = after
        moved = (after - before).abs().amax(-1) > STILL * after.abs().amax(-1)
        left = left[moved]
    return _on_support(second, moment, thresholds, weights)


def _sweep(second: Tensor, moment: Tensor, thresholds: Tensor, weights: Tensor) -> Tensor:
    weights = weights.clone()
    curvature = second.diagonal(dim1=-2, dim2=-1)
    for j in range(weights.shape[-1]):
        pull = moment[:, j] - (second[:, j] * weights).sum(-1) + curvature[:, j] * weights[:, j]
        shrunk = pull.sign() * (pull.abs() - thresholds).clamp_min(0)
        weights[:, j] = torch.where(curvature[:, j] > 0, shrunk / curvature[:, j], 0)
    return weights


def _on_support(second: Tensor, moment: Tensor, thresholds: Tensor, weights: Tensor) -> Tensor:
    """The exact solution with the given signs, where these stay; otherwise the weights as they are."""
    used = weights != 0
    apart = ~(used[:, :, None] & used[:, None, :])
    system = second.masked_fill(apart, 0) + torch.diag_embed((~used).to(second))
    target = (moment - thresholds[:, None] * weights.sign()) * used
    exact, failed = torch.linalg.solve_ex(system, target[..., None])
    exact = exact[..., 0]
    kept = (failed == 0)[:, None] & (exact.sign() == weights.sign()).all(-1, keepdim=True)
    return torch.where(kept, exact, weights)
