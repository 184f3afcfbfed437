r"""Learners that let the nearest examples vote: what they share.

    prediction = sum_s v_s y_s / sum_s v_s    (for classes: the shares of the votes)

Examples that tie at the k-th distance share the votes that are left, so that the prediction does not depend on the
examples' order. With fewer than k examples all of them vote; without any the mean is 0 and all classes are equal.
Shapes: distances and votes [batch, queries, time]; a distance is infinite where the example is not shown.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.learners.inputs import blocks, classification, numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction

SAME = 1 + 1e-12
"""Distances within this factor count as equal."""


class NeighbourLearner(ABC):
    """A learner that weighs the examples by their distance from the query, for regression and classification."""

    __slots__ = ()
    card: ClassVar[LearnerCard]

    @abstractmethod
    def votes(self, distances: Float[Tensor, "batch queries time"]) -> Float[Tensor, "batch queries time"]:
        """How much each example counts for each query; zero where the distance is infinite."""

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The voters' mean or shares for every query after all of the context."""
        x, y = self._examples(context)
        queries = numeric(self.card, context.schema, queries)
        parts = [
            self._count(self.votes(distances(queries[block], x[block])), y[block], context.schema.num_classes)
            for block in blocks(max(1, x.shape[0]), queries.shape[1] * x.shape[1])
        ]
        return _prediction(parts, context)

    def prequential(self, episodes: Pairs) -> Prediction:
        """The voters' mean or shares at every t among the examples before it."""
        x, y = self._examples(episodes)
        later = torch.ones(episodes.time, episodes.time, dtype=torch.bool, device=x.device).triu()
        parts = []
        for block in blocks(max(1, x.shape[0]), episodes.time**2):
            away = distances(x[block], x[block]).masked_fill(later, torch.inf)
            parts.append(self._count(self.votes(away), y[block], episodes.schema.num_classes))
        return _prediction(parts, episodes)

    def _examples(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return (regression if pairs.schema.task == "regression" else classification)(self.card, pairs)

    def _count(self, votes: Tensor, y: Tensor, num_classes: int) -> Tensor:
        """Means [batch, queries] where num_classes is 0, else shares [batch, queries, classes]."""
        values = torch.nn.functional.one_hot(y, num_classes).to(votes) if num_classes else y[..., None]
        total = votes.sum(-1, keepdim=True)
        counts = (votes / torch.where(total > 0, total, 1)) @ values
        return torch.where(total > 0, counts, 1 / num_classes) if num_classes else counts[..., 0]


def distances(
    queries: Float[Tensor, "batch queries features"], x: Float[Tensor, "batch time features"]
) -> Float[Tensor, "batch queries time"]:
    """Euclidean distances by differences, so that equal rows are at distance zero exactly."""
    return torch.cdist(queries, x, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(distances: Float[Tensor, "batch queries time"], k: int) -> Float[Tensor, "batch queries time"]:
    """One vote for each of the k nearest, ties at the k-th distance sharing."""
    if distances.shape[-1] == 0:
        return distances
    shown = torch.isfinite(distances)
    reach = distances.topk(min(k, distances.shape[-1]), largest=False).values
    reach = torch.where(torch.isfinite(reach), reach, 0).amax(-1, keepdim=True)
    nearer = shown & (distances * SAME < reach)
    tied = shown & ~nearer & (distances <= reach * SAME)
    left = shown.sum(-1, keepdim=True).clamp_max(k) - nearer.sum(-1, keepdim=True)
    return nearer + tied * (left / tied.sum(-1, keepdim=True).clamp_min(1)).to(distances)


def _prediction(parts: list[Tensor], pairs: Pairs) -> Prediction:
    values = torch.cat(parts)
    return Prediction(probabilities=values) if pairs.schema.num_classes else Prediction(mean=values)
