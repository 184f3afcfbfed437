"""A distribution over small tables, on which an in-context learner for tables is trained.

One table: columns (covariates.py), a share of them relevant, scores of the relevant columns by one or two mechanisms
(linear.py, networks.py, trees.py, prototypes.py) or by units of the same causal graph, a target (targets.py), and
columns spoiled (corruption.py). In the spirit of Müller et al. 2022 ("Transformers can do Bayesian inference") and
Hollmann et al. 2023, 2025 (TabPFN).

Legend: B = tables of a batch, N = rows, of which the first `num_context` are shown with their target, D = columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.tasks.tabular_prior.corruption import add_outliers, categorise, copy_columns, remove_cells, warp
from contexture.tasks.tabular_prior.covariates import causal_graph, sample_covariates
from contexture.tasks.tabular_prior.draws import (
    chance,
    choose,
    integer,
    log_integer,
    log_uniform,
    standardise,
    subset,
    take_columns,
    uniform,
)
from contexture.tasks.tabular_prior.linear import linear_scores, quadratic_scores
from contexture.tasks.tabular_prior.networks import additive_scores, fourier_scores, network_scores
from contexture.tasks.tabular_prior.prototypes import class_conditional, prototype_scores
from contexture.tasks.tabular_prior.targets import class_shares, classification_target, regression_target
from contexture.tasks.tabular_prior.trees import tree_scores

MECHANISMS: dict[str, tuple[Callable[..., Tensor], float]] = {
    "linear": (linear_scores, 4.0),
    "quadratic": (quadratic_scores, 1.5),
    "network": (network_scores, 3.0),
    "fourier": (fourier_scores, 2.0),
    "additive": (additive_scores, 2.5),
    "tree": (tree_scores, 5.0),
    "prototype": (prototype_scores, 1.5),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableBatch:
    """Tables of one shape. A regression has `num_classes` 0; class codes are whole numbers in y.

    x: NaN where a cell is missing, codes in categorical columns; y: known for all rows, shown for the context alone.
    """

    x: Float[Tensor, "tables rows columns"]
    categorical: Bool[Tensor, "tables columns"]
    y: Float[Tensor, "tables rows"]
    num_classes: Int[Tensor, " tables"]
    num_context: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TabularPrior:
    """Settings of the distribution over tables.

    A share `wide_share` of the shapes has 20 to `max_columns` columns, the others 1 to 20; contexts hold
    `min_context` to `max_context` rows, log-uniformly.
    """

    max_columns: int = 60
    wide_share: float = 0.15
    min_context: int = 12
    max_context: int = 400
    long_share: float = 0.04
    long_context: int = 600
    max_classes: int = 10
    regression_share: float = 0.45

    def sample_shape(self, *, generator: torch.Generator) -> tuple[int, int, int]:
        """The shape of a batch: rows in the context, rows asked about, columns."""
        if chance(self.wide_share, generator=generator):
            columns = log_integer(20, self.max_columns, generator=generator)
        else:
            columns = log_integer(1, 20, generator=generator)
            columns = max(columns, integer(1, 8, generator=generator))
        context = log_integer(self.min_context, self.max_context, generator=generator)
        if chance(self.long_share, generator=generator):
            context = integer(self.max_context, self.long_context, generator=generator)
        return context, min(96, max(24, context // 2)), columns

    def sample(
        self, batch: int, *, num_context: int, num_queries: int, num_columns: int, generator: torch.Generator
    ) -> TableBatch:
        """Draw `batch` tables of one shape, a few at a time from one mechanism."""
        num_groups = min(batch, 14)
        sizes = [batch // num_groups + (i < batch % num_groups) for i in range(num_groups)]
        groups = [self._group(size, num_context + num_queries, num_columns, generator=generator) for size in sizes]
        x, categorical, y, num_classes = (torch.cat(parts) for parts in zip(*groups, strict=True))
        return TableBatch(x=x, categorical=categorical, y=y, num_classes=num_classes, num_context=num_context)

    def _group(
        self, batch: int, num_rows: int, num_columns: int, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tables that share mechanism and kind of target, and differ in every number."""
        num_classes = 0 if chance(self.regression_share, generator=generator) else self._num_classes(generator)
        share = choose((0.0, 0.3, 1.0), weights=(5, 4, 1), generator=generator)
        share = share * float(uniform(1, low=0.3, high=1.0, generator=generator)) if share < 1 else 1.0
        if num_classes and chance(0.15, generator=generator):
            shares = class_shares(batch, num_classes, generator=generator)
            y = torch.multinomial(shares, num_rows, replacement=True, generator=generator)
            x = class_conditional(y, num_classes, num_columns, generator=generator)
            _, codes, chosen = categorise(x, share=share, generator=generator)
        else:
            x, codes, chosen, scores = self._scored(
                batch, num_rows, num_columns, max(2, num_classes), share=share, generator=generator
            )
            if num_classes:
                y = classification_target(scores, num_classes, generator=generator)
            else:
                y = regression_target(scores, generator=generator)
        if num_classes:
            order = torch.rand(batch, num_classes, generator=generator).argsort(dim=1)
            y = order.gather(1, y)
        x = self._spoil(x, generator=generator)
        flagged = chosen if chance(0.8, generator=generator) else torch.zeros_like(chosen)
        x = torch.where(chosen[:, None] & ~x.isnan(), codes.to(x.dtype), x)
        return x, flagged, y.to(x.dtype), torch.full((batch,), num_classes)

    def _num_classes(self, generator: torch.Generator) -> int:
        weights = [0.0, 0.0, 8.0, 3.5] + [1.4] * (self.max_classes - 3)
        return int(choose(range(self.max_classes + 1), weights=weights, generator=generator))

    def _scored(
        self,
        batch: int,
        num_rows: int,
        num_columns: int,
        num_scores: int,
        *,
        share: float,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Columns, their codes as categories, which columns are categories, and standardised scores."""
        if chance(0.2, generator=generator):
            x, scores = causal_graph(batch, num_rows, num_columns, num_targets=num_scores, generator=generator)
            _, codes, chosen = categorise(x, share=share, generator=generator)
            return x, codes, chosen, scores
        x = sample_covariates(batch, num_rows, num_columns, generator=generator)
        x, codes, chosen = categorise(x, share=share, generator=generator)
        scores = self._scores(x, num_scores, generator=generator)
        if chance(0.35, generator=generator):
            weight = log_uniform(batch, 1, 1, low=0.2, high=1.0, generator=generator)
            scores = standardise(scores + weight * self._scores(x, num_scores, generator=generator))
        return x, codes, chosen, scores

    def _scores(self, x: Tensor, num_scores: int, *, generator: torch.Generator) -> Tensor:
        """Scores by one mechanism of a random subset of the columns."""
        num_columns = x.shape[2]
        count = log_integer(1, num_columns, generator=generator)
        if num_columns <= 20 and chance(0.5, generator=generator):
            count = integer(-(-num_columns // 2), num_columns, generator=generator)
        relevant = take_columns(x, subset(x.shape[0], num_columns, count, generator=generator))
        names = tuple(MECHANISMS)
        name = choose(names, weights=[MECHANISMS[name][1] for name in names], generator=generator)
        return MECHANISMS[name][0](relevant.clamp(-6, 6), num_scores, generator=generator)

    def _spoil(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Copies, warps, outliers, missing cells and a scale and offset per column, each with its own chance."""
        if x.shape[2] > 2 and chance(0.15, generator=generator):
            x = copy_columns(x, generator=generator)
        if chance(0.6, generator=generator):
            x = warp(x, generator=generator)
        if chance(0.15, generator=generator):
            x = add_outliers(x, generator=generator)
        if chance(0.25, generator=generator):
            x = remove_cells(x, generator=generator)
        return x


def expected_cells(prior: TabularPrior, *, draws: int, generator: torch.Generator) -> float:
    """The mean number of cells of a table, over the prior's shapes."""
    shapes = [prior.sample_shape(generator=generator) for _ in range(draws)]
    return math.fsum((context + queries) * columns for context, queries, columns in shapes) / draws
