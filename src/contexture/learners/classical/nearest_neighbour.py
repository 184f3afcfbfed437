"""The nearest neighbour: the query's target is that of the closest example.

Cover and Hart (1967), Nearest neighbor pattern classification. Shapes: distances and votes [batch, queries, time].
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from contexture.learners.classical.neighbours import NeighbourLearner, nearest
from contexture.protocols import LearnerCard


@dataclass(frozen=True, slots=True)
class NearestNeighbour(NeighbourLearner):
    """Repeats the target of the closest example; equally close examples share.

    >>> import torch
    >>> NearestNeighbour().votes(torch.tensor([[[3.0, 1.0, 1.0]]]))
    tensor([[[0.0000, 0.5000, 0.5000]]])
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="nearest-neighbour",
        summary="The target of the closest example.",
        paper="Cover and Hart, Nearest neighbor pattern classification",
        year=1967,
        kind="classical",
        targets=frozenset({"regression", "classification"}),
        invariances=frozenset({"example-order", "column-order", "label-names"}),
    )

    def votes(self, distances: Float[Tensor, "batch queries time"]) -> Float[Tensor, "batch queries time"]:
        """One vote, for the closest."""
        return nearest(distances, 1)
