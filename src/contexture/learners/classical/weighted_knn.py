"""Distance-weighted k nearest neighbours: each of the k closest examples counts as 1 / distance.

Dudani (1976), The distance-weighted k-nearest-neighbor rule. Shapes: distances, votes [batch, queries, time].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.neighbours import NeighbourLearner, nearest
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class WeightedNearestNeighbours(NeighbourLearner):
    """The k closest examples, nearer ones counting more; an example at distance zero counts alone.

    >>> WeightedNearestNeighbours(k=2).votes(torch.tensor([[[3.0, 1.0, 0.5]]]))
    tensor([[[0., 1., 2.]]])
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="weighted-knn",
        summary="The k closest examples, weighted by one over their distance.",
        paper="Dudani, The distance-weighted k-nearest-neighbor rule",
        year=1976,
        kind="classical",
        targets=frozenset({"regression", "classification"}),
        invariances=frozenset({"example-order", "column-order", "label-names"}),
    )

    k: int = 3

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"weighted-knn needs k of at least 1, but it is {self.k}")

    def votes(self, distances: Float[Tensor, "batch queries time"]) -> Float[Tensor, "batch queries time"]:
        """Votes of 1 / distance for the k closest."""
        exact = distances == 0
        weights = torch.where(exact.any(-1, keepdim=True), exact.to(distances), 1 / distances)
        return nearest(distances, self.k) * weights
