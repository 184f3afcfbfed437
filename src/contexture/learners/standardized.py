"""A learner of plain numbers made fit for tables: columns are prepared from the context, and from nothing else.

Numeric columns: missing cells become the context's mean and get a column of their own that says so; then every column
is brought to mean 0 and variance 1. Categorical columns: one column of 0 and 1 per category that the context holds,
brought to mean 0; a missing cell is the context's most frequent category, and a column says so. What does not vary in
the context tells the learner nothing and is 0, in the queries too. The targets of a regression are brought to mean 0
and variance 1, and the prediction back.

Shapes: x [batch, time, features]; queries [batch, queries, features]; prepared columns [.., prepared].
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import targets
from contexture.protocols import Column, Learner, LearnerCard, Pairs, Prediction, Schema

FLAT = 1e-12
"""A column whose deviations are below this share of its size does not vary: what is left of it is rounding."""


@dataclass(frozen=True, slots=True)
class Standardized:
    """Wraps a learner so that it sees standardised numbers; its card is the learner's, fit for tables.

    As preparing changes with every example, `prequential` is `predict` on every prefix.

    >>> from contexture.learners.classical.ols import OLS
    >>> schema = Schema(features=(Column(name="a", kind="categorical", categories=("x", "y")),))
    >>> context = Pairs(x=torch.tensor([[[0.0], [1.0], [1.0]]]), y=torch.tensor([[10.0, 20.0, 22.0]]), schema=schema)
    >>> Standardized(OLS()).predict(context, torch.tensor([[[0.0], [1.0], [torch.nan]]])).mean.round(decimals=3)
    tensor([[10., 21., 21.]], dtype=torch.float64)
    """

    learner: Learner

    @property
    def card(self) -> LearnerCard:
        """The learner's own card, saying that tables are handled and how prefixes are."""
        return dataclasses.replace(self.learner.card, tables=True, prequential="refit")

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Prepare context and queries by what the context holds, predict, and undo the preparation of y."""
        columns = _Columns(context)
        x, asked = columns.prepare(context.x), columns.prepare(queries)
        target = context.schema.target
        schema = Schema(features=Schema.numeric(x.shape[-1]).features, target=target)
        if context.schema.task == "classification":
            return self.learner.predict(Pairs(x=x, y=context.y, schema=schema), asked)
        y = targets(self.card, context)
        centre, scale = _centre_and_scale(y[..., None])
        spread = torch.where(scale > 0, scale, 1)[:, 0]
        said = self.learner.predict(Pairs(x=x, y=(y - centre[:, 0]) / spread, schema=schema), asked)
        return _undone(said, centre[:, 0], spread)

    def prequential(self, episodes: Pairs) -> Prediction:
        """The prediction at every t from the examples before it."""
        said = [self.predict(episodes.prefix(t), episodes.x[:, t : t + 1]) for t in range(episodes.time)]
        if not said:
            return self.predict(episodes, episodes.x)
        joined: dict[str, Tensor] = {}
        for name in ("mean", "variance", "probabilities", "quantiles"):
            parts = [getattr(one, name) for one in said]
            if parts[-1] is not None:
                joined[name] = torch.cat(parts, dim=1)
        return Prediction(levels=said[-1].levels, **joined)


class _Columns:
    """What the context says about each column, and the numbers made of it."""

    def __init__(self, context: Pairs) -> None:
        self.features = context.schema.features
        self.context = context.x.to(torch.float64)

    def prepare(self, rows: Float[Tensor, "batch rows features"]) -> Float[Tensor, "batch rows prepared"]:
        """The rows as standardised numbers."""
        if rows.shape[-1] != len(self.features):
            raise InputError(f"the context has {len(self.features)} features, but the queries have {rows.shape[-1]}")
        if bool(rows.isinf().any()):
            raise InputError("x holds an infinite number, where a missing cell would be NaN")
        rows = rows.to(torch.float64)
        made = [part for j, column in enumerate(self.features) for part in self._column(j, column, rows)]
        return torch.cat([rows[..., :0], *made], dim=-1)

    def _column(self, j: int, column: Column, rows: Tensor) -> Iterator[Float[Tensor, "batch rows made"]]:
        known, asked = self.context[..., j : j + 1], rows[..., j : j + 1]
        make = _numeric if column.kind == "numeric" else _one_hot
        yield make(known, asked, len(column.categories))
        gaps = known.isnan()
        yield _centred(gaps.to(known), asked.isnan().to(known))


def _numeric(known: Float[Tensor, "batch time 1"], asked: Float[Tensor, "batch rows 1"], _: int) -> Tensor:
    """z-scores by the known cells; a missing cell is at the mean."""
    centre, scale = _centre_and_scale(known)
    scores = (asked - centre) / torch.where(scale > 0, scale, 1)
    return torch.where((scale > 0) & ~asked.isnan(), scores, 0)


def _one_hot(known: Float[Tensor, "batch time 1"], asked: Float[Tensor, "batch rows 1"], num_categories: int) -> Tensor:
    """Centred 0 and 1 for every category; a missing cell is the most frequent category of the context."""
    codes = torch.arange(num_categories).to(known)
    counts = (known == codes).to(known).sum(1, keepdim=True)
    if num_categories:
        usual = counts.argmax(-1, keepdim=True).to(known)
        known, asked = torch.where(known.isnan(), usual, known), torch.where(asked.isnan(), usual, asked)
    return _centred((known == codes).to(known), (asked == codes).to(known))


def _centred(known: Float[Tensor, "batch time made"], asked: Float[Tensor, "batch rows made"]) -> Tensor:
    """Cells less the context's mean, 0 where the context's cells are all the same."""
    centre, scale = _centre_and_scale(known)
    return torch.where(scale > 0, asked - centre, 0)


def _centre_and_scale(cells: Float[Tensor, "batch time made"]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over time of the cells that are not missing, [batch, 1, made]; scale 0 if flat."""
    known: Bool[Tensor, "batch time made"] = ~cells.isnan()
    count = known.sum(1, keepdim=True).clamp_min(1)
    centre = torch.where(known, cells, 0).sum(1, keepdim=True) / count
    apart = torch.where(known, cells - centre, 0)
    scale = (apart.square().sum(1, keepdim=True) / count).sqrt()
    return centre, torch.where(scale > FLAT * centre.abs(), scale, 0)


def _undone(said: Prediction, centre: Float[Tensor, "batch 1"], scale: Float[Tensor, "batch 1"]) -> Prediction:
    assert said.mean is not None
    return dataclasses.replace(
        said,
        mean=said.mean * scale + centre,
        variance=None if said.variance is None else said.variance * scale.square(),
        quantiles=None if said.quantiles is None else said.quantiles * scale[..., None] + centre[..., None],
    )
