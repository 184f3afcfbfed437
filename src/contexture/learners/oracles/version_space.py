"""The vote of all concepts that agree with every example: optimal for a finite class, a uniform prior and no noise.

    p(y = 1 | x, examples) = share of concepts c that say c(x) = 1 among those with c(x_t) = y_t for all t

Mitchell 1982, "Generalization as search".

Legend: B = batch, T = time, Q = queries, H = concepts, D = features.
"""

import math
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import ClassVar, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import blocks, classification, numeric
from contexture.protocols import LearnerCard, Pairs, Prediction, Schema

MOST_CONCEPTS = 8192


class Concepts(Protocol):
    """A finite class of functions from x to true or false."""

    def count(self, num_features: int) -> int:
        """How many concepts there are."""
        ...

    def values(self, x: Float[Tensor, "batch rows features"]) -> Bool[Tensor, "batch rows concepts"]:
        """What each concept says of each row."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Parities:
    """Whether an odd number of a subset's coordinates is negative; all non-empty subsets, or those of one size.

    >>> Parities(num_relevant=2).values(torch.tensor([[[1.0, -1.0, 1.0]]])).tolist()
    [[[True, False, True]]]
    """

    num_relevant: int | None = None

    def count(self, num_features: int) -> int:
        """2^d - 1, or d choose `num_relevant`."""
        return 2**num_features - 1 if self.num_relevant is None else math.comb(num_features, self.num_relevant)

    def values(self, x: Float[Tensor, "batch rows features"]) -> Bool[Tensor, "batch rows concepts"]:
        """The parities, subsets in lexicographic order."""
        num_features = x.shape[-1]
        if self.num_relevant is None:
            subsets = torch.tensor(list(product((0.0, 1.0), repeat=num_features)))[1:]
        else:
            chosen = torch.tensor(list(combinations(range(num_features), self.num_relevant)))
            subsets = torch.zeros(len(chosen), num_features).scatter(1, chosen, 1.0)
        return ((x < 0).float() @ subsets.to(x.device).T % 2).bool()


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionSpace:
    """Probabilities of the classes 0 and 1 by the vote of consistent concepts; all classes alike where none is left."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="version-space",
        summary="The vote of all concepts of a finite class, by default parities, that agree with every example.",
        paper="Mitchell: Generalization as search",
        year=1982,
        kind="classical",
        targets=frozenset({"classification"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    concepts: Concepts = field(default_factory=Parities)

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The vote at each query of the concepts that agree with all of the context."""
        queries = numeric(self.card, context.schema, queries)
        x, y = classification(self.card, context)
        self._check(context.schema)
        out = queries.new_empty(*queries.shape[:2], context.schema.num_classes)
        for rows in blocks(x.shape[0], self._numbers(x.shape[1] + queries.shape[1], x.shape[2])):
            alive = (self.concepts.values(x[rows]) == y[rows].unsqueeze(-1)).all(1, keepdim=True)
            out[rows] = _vote(self.concepts.values(queries[rows]), alive, out.shape[2])
        return Prediction(probabilities=out)

    def prequential(self, episodes: Pairs) -> Prediction:
        """The vote at every t of the concepts that agree with what came before."""
        x, y = classification(self.card, episodes)
        self._check(episodes.schema)
        out = x.new_empty(*y.shape, episodes.schema.num_classes)
        for rows in blocks(x.shape[0], self._numbers(x.shape[1], x.shape[2])):
            values = self.concepts.values(x[rows])
            wrong = (values != y[rows].unsqueeze(-1)).int()
            out[rows] = _vote(values, wrong.cumsum(1) - wrong == 0, out.shape[2])
        return Prediction(probabilities=out)

    def _numbers(self, num_rows: int, num_features: int) -> int:
        return num_rows * self.concepts.count(num_features)

    def _check(self, schema: Schema) -> None:
        if schema.num_classes < 2:
            raise InputError(f"{self.card.name} tells classes apart, but the target has {schema.num_classes}")
        count = self.concepts.count(len(schema.features))
        if not 0 < count <= MOST_CONCEPTS:
            raise InputError(
                f"{self.card.name} enumerates at most {MOST_CONCEPTS} concepts, but {len(schema.features)} features "
                f"have {count}: use fewer features"
            )


def _vote(
    values: Bool[Tensor, "batch rows concepts"], alive: Bool[Tensor, "batch #rows concepts"], num_classes: int
) -> Float[Tensor, "batch rows classes"]:
    """The shares of living concepts that say false and true; classes beyond two have none."""
    total = alive.sum(-1)
    share = (values & alive).sum(-1).double() / total.clamp(min=1)
    out = share.new_zeros(*share.shape, num_classes)
    out[..., 0], out[..., 1] = 1 - share, share
    return torch.where((total > 0).unsqueeze(-1), out, 1 / num_classes)
