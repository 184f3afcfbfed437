r"""Online gradient descent on the squared error (least mean squares): one step per example, in their order.

    w_t = w_{t-1} + rate (y_t - x_t . w_{t-1}) x_t

Widrow and Hoff (1960), Adaptive switching circuits. Shapes: x [batch, time, features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class OnlineGradientDescent(LinearLearner):
    """One gradient step per example; `rate` None takes one over the largest squared length of x so far.

    InputError unless the rate is positive.

    >>> x, y = torch.ones(1, 2, 1), torch.tensor([[1.0, 1.0]])
    >>> OnlineGradientDescent(rate=0.5).prefix_weights(x, y)[0, :, 0]
    tensor([0.0000, 0.5000, 0.7500])
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="online-gd",
        summary="One gradient step on the squared error per example (least mean squares).",
        paper="Widrow and Hoff, Adaptive switching circuits",
        year=1960,
        kind="online",
        targets=frozenset({"regression"}),
        invariances=frozenset({"column-order"}),
    )

    rate: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise InputError(f"online-gd needs a positive rate, but it is {self.rate}")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""
        if self.rate is None:
            longest = x.square().sum(-1).cummax(dim=1).values if x.shape[1] else x.new_zeros(x.shape[:2])
            rates = torch.where(longest > 0, 1 / longest, 0)
        else:
            rates = x.new_full(x.shape[:2], self.rate)
        return least_mean_squares(x, y, rates=rates)


def least_mean_squares(
    x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"], *, rates: Float[Tensor, "batch time"]
) -> Float[Tensor, "batch prefixes features"]:
    """The weights after every example, with a rate for each."""
    weights = x.new_zeros(x.shape[0], x.shape[1] + 1, x.shape[2])
    for t in range(x.shape[1]):
        before = weights[:, t]
        error = y[:, t] - torch.einsum("bd,bd->b", x[:, t], before)
        weights[:, t + 1] = before + (rates[:, t] * error)[:, None] * x[:, t]
    return weights
