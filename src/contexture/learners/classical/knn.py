"""k nearest neighbours: the mean, or the class shares, of the k closest examples.

Fix and Hodges (1951), Discriminatory analysis; nonparametric discrimination. Shapes: distances, votes [batch, queries,
time].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.neighbours import NeighbourLearner, nearest
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class KNearestNeighbours(NeighbourLearner):
    """The k closest examples, all counting alike; InputError unless k is at least 1.

    >>> import torch
    >>> KNearestNeighbours(k=2).votes(torch.tensor([[[3.0, 1.0, 0.5]]]))
    tensor([[[0., 1., 1.]]])
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="knn",
        summary="The mean, or the class shares, of the k closest examples.",
        paper="Fix and Hodges, Discriminatory analysis; nonparametric discrimination: consistency properties",
        year=1951,
        kind="classical",
        targets=frozenset({"regression", "classification"}),
        invariances=frozenset({"example-order", "column-order", "label-names"}),
    )

    k: int = 3

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"knn needs k of at least 1, but it is {self.k}")

    def votes(self, distances: Float[Tensor, "batch queries time"]) -> Float[Tensor, "batch queries time"]:
        """One vote each for the k closest."""
        return nearest(distances, self.k)
