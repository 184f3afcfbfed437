r"""Naive Bayes: features are independent given the class; Gaussian in numeric columns, categorical in the others.

    p(c | x) ~ (n_c + 1) prod_j p(x_j | c)
    numeric:      N(mean_cj, variance_cj), each shrunk towards that of all classes as if by one more example
    categorical:  (n_cj(value) + 1) / (n_cj + number of values)

Missing cells are left out of the product and of the counts, and scales do not matter, so tables need no preparation.
Maron (1961), Automatic indexing. Means and squares are updated by Welford's rule (1962), which loses no digits.
Shapes: x [batch, time, features]; running counts [batch, classes, features] and [batch, classes, features, values].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import classes
from contexture.protocols import LearnerCard, Pairs, Prediction, Schema


@dataclass(frozen=True, slots=True)
class NaiveBayes:
    """Gaussian and categorical naive Bayes with one pseudo-example.

    >>> from contexture.protocols import Schema
    >>> x, y = torch.tensor([[[-2.0], [-1.0], [1.0], [2.0]]]), torch.tensor([[0, 0, 1, 1]])
    >>> context = Pairs(x=x, y=y, schema=Schema.classes(1, 2))
    >>> NaiveBayes().predict(context, torch.tensor([[[0.0], [1.5]]])).probabilities[0].round(decimals=3)
    tensor([[0.5000, 0.5000],
            [0.0470, 0.9530]], dtype=torch.float64)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="naive-bayes",
        summary="Features independent given the class: Gaussian where numeric, else categorical.",
        paper="Maron, Automatic indexing: an experimental inquiry",
        year=1961,
        kind="classical",
        targets=frozenset({"classification"}),
        invariances=frozenset({"example-order", "column-order", "label-names"}),
        tables=True,
    )

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The probabilities of every query after all of the context."""
        counts = _Counts(context)
        for t in range(context.time):
            counts.add(t)
        return Prediction(probabilities=counts.probabilities(queries))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The probabilities at every t from the examples before it."""
        counts, parts = _Counts(episodes), []
        for t in range(episodes.time):
            parts.append(counts.probabilities(episodes.x[:, t : t + 1]))
            counts.add(t)
        empty = counts.shares.new_zeros(episodes.batch, 0, episodes.schema.num_classes)
        return Prediction(probabilities=torch.cat([empty, *parts], dim=1))


class _Counts:
    """Everything that has to be kept of the examples seen so far."""

    def __init__(self, pairs: Pairs) -> None:
        self.numeric, self.categorical, values = _columns(pairs.schema)
        labels = classes(NaiveBayes.card, pairs)
        self.one_hot = torch.nn.functional.one_hot(labels, pairs.schema.num_classes).to(torch.float64)
        self.x = pairs.x.to(torch.float64)
        if bool(self.x.isinf().any()):
            raise InputError(f"{NaiveBayes.card.name} takes finite numbers, but x holds an infinite one")
        self.shares = torch.ones(pairs.batch, pairs.schema.num_classes).to(self.x)
        self.by_class = _Moments((pairs.batch, pairs.schema.num_classes, len(self.numeric)), self.x)
        self.overall = _Moments((pairs.batch, 1, len(self.numeric)), self.x)
        self.values = self.x.new_zeros(pairs.batch, pairs.schema.num_classes, len(self.categorical), max([1, *values]))
        self.num_values = self.x.new_tensor(values)

    def add(self, t: int) -> None:
        """Count the example at t in."""
        label = self.one_hot[:, t]
        cells = self.x[:, t, None, self.numeric]
        self.shares += label
        self.by_class.add(cells, ~cells.isnan() & (label[..., None] > 0))
        self.overall.add(cells, ~cells.isnan())
        self.values += label[:, :, None, None] * self._value_one_hot(self.x[:, t : t + 1])

    def probabilities(self, queries: Float[Tensor, "batch queries features"]) -> Float[Tensor, "batch queries classes"]:
        """The posterior of the class of every query."""
        queries = queries.to(self.x)
        scores = self.shares.log()[:, None] + self._gaussian(queries[..., None, self.numeric]).sum(-1)
        chances = (self.values + 1) / (self.values.sum(-1) + self.num_values)[..., None]
        asked = self._value_one_hot(queries)
        return (scores + torch.einsum("bqfv,bcfv->bqc", asked, chances.log())).softmax(-1)

    def _gaussian(
        self, cells: Float[Tensor, "batch queries 1 columns"]
    ) -> Float[Tensor, "batch queries classes columns"]:
        """log p(cell | class), 0 for a missing cell."""
        overall = self.overall.squares / self.overall.count.clamp_min(1)
        overall = torch.where(overall > 0, overall, 1)
        variance = (self.by_class.squares + overall) / (self.by_class.count + 1)
        weight = 1 / (self.by_class.count + 1)
        mean = self.by_class.mean * (1 - weight) + self.overall.mean * weight
        density = -0.5 * ((cells - mean[:, None]).square() / variance[:, None] + variance.log()[:, None])
        return torch.where(cells.isnan(), 0, density)

    def _value_one_hot(self, rows: Float[Tensor, "batch rows features"]) -> Float[Tensor, "batch rows columns values"]:
        """The value of every categorical cell; all zero where it is missing or none of the schema's."""
        cells = rows[..., self.categorical, None]
        return (cells == torch.arange(self.values.shape[-1]).to(cells)).to(self.x)


class _Moments:
    """Count, mean and sum of squared deviations, of masked cells."""

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.count, self.mean, self.squares = (like.new_zeros(shape) for _ in range(3))

    def add(self, cells: Float[Tensor, "batch #classes columns"], known: Tensor) -> None:
        """Welford's update where `known`."""
        self.count += known
        apart = torch.where(known, cells - self.mean, 0)
        self.mean += apart / self.count.clamp_min(1)
        self.squares += apart * torch.where(known, cells - self.mean, 0)


def _columns(schema: Schema) -> tuple[list[int], list[int], list[int]]:
    """The numeric columns, the categorical columns, and how many values each of the latter has."""
    numeric = [j for j, column in enumerate(schema.features) if column.kind == "numeric"]
    categorical = [j for j, column in enumerate(schema.features) if column.kind == "categorical"]
    return numeric, categorical, [max(1, len(schema.features[j].categories)) for j in categorical]
