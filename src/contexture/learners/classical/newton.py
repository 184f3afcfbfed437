r"""Iterative Newton (Newton-Schulz) for the inverse of S = X'X, which doubles the correct digits at every step:

    M_0 = a S,   M_{k+1} = 2 M_k - M_k S M_k,   w_k = M_k X'y

From a S every eigenvalue of M S stays between 0 and 2 while a < 2 / lmax^2, so M_k tends to the pseudo-inverse. At
a = 2 / lmax^2 itself the largest direction is lost in the first step; `scale` = a lmax^2 therefore stays below 2.
Schulz (1933); Fu et al. (2023), Transformers learn higher-order optimization methods for in-context learning.
Shapes: x [batch, time, features]; y [batch, time]; S, M [.., features, features].
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


@dataclass(frozen=True, slots=True)
class Newton(LinearLearner):
    """Weights from a fixed number of Newton steps towards the inverse of X'X.

    InputError unless 0 < scale < 2.

    >>> x, y = torch.tensor([[[2.0]]], dtype=torch.float64), torch.tensor([[6.0]], dtype=torch.float64)
    >>> [round(Newton(steps=k, scale=0.5).weights(x, y).item(), 4) for k in range(4)]
    [1.5, 2.25, 2.8125, 2.9883]
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="newton",
        summary="A fixed number of Newton steps towards the inverse of X'X.",
        paper="Fu et al., Transformers learn higher-order optimization methods for in-context learning",
        year=2023,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    steps: int = 10
    scale: float = 1.9

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.scale < 2:
            found = f"they are {self.steps} and {self.scale}"
            raise InputError(f"newton needs at least 0 steps and a scale between 0 and 2, but {found}")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples; zero before any."""
        batch, time, features = x.shape
        weights = x.new_zeros(batch, time + 1, features)
        for block in blocks(batch, time * features**2):
            rows = x[block]
            second = torch.cumsum(rows[..., :, None] * rows[..., None, :], dim=1)
            weights[block, 1:] = self._iterate(second, torch.cumsum(y[block, :, None] * rows, dim=1))
        return weights

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The weights after all of the examples."""
        return self._iterate(x.mT @ x, torch.einsum("btd,bt->bd", x, y))

    def _iterate(
        self, second: Float[Tensor, "*many d d"], moment: Float[Tensor, "*many d"]
    ) -> Float[Tensor, "*many d"]:
        largest = torch.linalg.eigvalsh(second)[..., -1, None, None]
        inverse = second * torch.where(largest > 0, self.scale / largest.square(), 0)
        for _ in range(self.steps):
            inverse = 2 * inverse - inverse @ second @ inverse
        return (inverse @ moment[..., None])[..., 0]
