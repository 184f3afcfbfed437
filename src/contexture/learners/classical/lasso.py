r"""The Lasso: argmin_w  |y - X w|^2 / (2 n) + alpha |w|_1 over the first n examples.

Coordinate descent on every prefix at once: w_j <- soft(x_j . r_j, n alpha) / |x_j|^2 with r_j the residual without
column j, as x_j . r_j = b_j - S_j . w + S_jj w_j from S = X'X and b = X'y. Once the right weights are off zero, these
solve S w = b - n alpha sign(w), which is taken as soon as it meets the conditions of the optimum.
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

ROUNDS, SWEEPS = 100, 10
"""After every ten sweeps it is tried whether the right weights are off zero; a problem gets 1,000 sweeps at most."""
ROUNDING, STILL = 1e-11, 1e-15


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
    for _ in range(ROUNDS):
        if not len(left):
            break
        problem = second[left], moment[left], thresholds[left]
        before = weights[left]
        after = before
        for _ in range(SWEEPS):
            after = _sweep(*problem, after)
        exact, optimal = _on_support(*problem, after)
        weights[left] = torch.where(optimal[:, None], exact, after)
        still = (after - before).abs().amax(-1) <= STILL * after.abs().amax(-1)
        left = left[~(optimal | still)]
    return weights


def _sweep(second: Tensor, moment: Tensor, thresholds: Tensor, weights: Tensor) -> Tensor:
    """One update of every coordinate."""
    weights = weights.clone()
    curvature = second.diagonal(dim1=-2, dim2=-1)
    for j in range(weights.shape[-1]):
        pull = moment[:, j] - (second[:, j] * weights).sum(-1) + curvature[:, j] * weights[:, j]
        shrunk = pull.sign() * (pull.abs() - thresholds).clamp_min(0)
        weights[:, j] = torch.where(curvature[:, j] > 0, shrunk / curvature[:, j], 0)
    return weights


def _on_support(second: Tensor, moment: Tensor, thresholds: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The solution if exactly these weights are off zero, with these signs; and whether that is the optimum."""
    used = weights != 0
    apart = ~(used[:, :, None] & used[:, None, :])
    system = second.masked_fill(apart, 0) + torch.diag_embed((~used).to(second))
    target = (moment - thresholds[:, None] * weights.sign()) * used
    exact, failed = torch.linalg.solve_ex(system, target[..., None])
    exact = exact[..., 0]
    pull = moment - (second @ exact[..., None])[..., 0]
    slack = thresholds[:, None] - (pull * torch.where(used, exact.sign(), pull.sign()))
    rounding = ROUNDING * moment.abs().amax(-1, keepdim=True)
    fits = torch.where(used, slack.abs() <= rounding, slack >= -rounding) & (exact.sign() == weights.sign())
    return exact, (failed == 0) & fits.all(-1)
