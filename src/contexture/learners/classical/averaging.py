"""Averaging: w_n = (1/n) sum_{t<=n} y_t x_t, the least-squares weights if x had the identity as its covariance.

Garg et al. (2022), What can transformers learn in-context? Shapes: x [batch, time, features]; y [batch, time].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.linear import LinearLearner
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class Averaging(LinearLearner):
    """The weights are the mean of y x.

    >>> x, y = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[3.0, 1.0]])
    >>> Averaging().weights(x, y)
    tensor([[1.5000, 1.0000]])
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="averaging",
        summary="Weights that are the mean of y times x.",
        paper="Garg et al., What can transformers learn in-context? A case study of simple function classes",
        year=2022,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The weights after 0, 1, .., time examples; zero before any."""
        total = torch.cumsum(y[..., None] * x, dim=1)
        counts = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]
        return torch.cat([x.new_zeros(x.shape[0], 1, x.shape[2]), total / counts], dim=1)
