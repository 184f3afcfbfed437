r"""Normalised least mean squares: each step is divided by the squared length of its x, so no scale of x diverges.

    w_t = w_{t-1} + rate (y_t - x_t . w_{t-1}) x_t / |x_t|^2

rate 1 makes the example's own error zero (Kaczmarz' projection). Nagumo and Noda (1967). Shapes: x [batch, time,
features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.online.gradient_descent import least_mean_squares
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class NormalisedLMS(LinearLearner):
    """One step per example, as a share of the step that would explain it; InputError unless 0 < rate < 2.

    >>> x, y = torch.tensor([[[2.0]]]), torch.tensor([[6.0]])
    >>> NormalisedLMS(rate=0.5).weights(x, y)
    tensor([[1.5000]])
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="normalised-lms",
        summary="Least mean squares with each step divided by the squared length of its x.",
        paper="Nagumo and Noda, A learning method for system identification",
        year=1967,
        kind="online",
        targets=frozenset({"regression"}),
        invariances=frozenset({"column-order"}),
    )

    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.rate < 2:
            raise InputError(f"normalised-lms needs a rate between 0 and 2, but it is {self.rate}")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples."""
        length = x.square().sum(-1)
        return least_mean_squares(x, y, rates=torch.where(length > 0, self.rate / length, 0))
