"""A table as a task: learn from some of its rows, predict the others.

One table is all there is, so it is divided again and again: every split shuffles the rows into a training half, of
which a learner is shown the first n, and a held-out half on which it is scored. Classes are stratified: each has its
share of both halves, to within one row. What is optimal for a real table is not known.

Shapes: x [batch, time, features], float64, NaN where missing, codes of categories; y [batch, time].
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import ClassVar

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.boosting import Boosting
from contexture.learners.classical.evidence_ridge import EvidenceRidge
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.logistic import Logistic
from contexture.learners.classical.majority import Majority
from contexture.learners.classical.mean import Mean
from contexture.learners.classical.naive_bayes import NaiveBayes
from contexture.learners.classical.random_forest import RandomForest
from contexture.learners.standardized import Standardized
from contexture.protocols import Learner, Pairs, Schema, TaskCard
from contexture.randomness import generator
from contexture.tables import Dataset
from contexture.tables.encode import encode_schema
from contexture.tasks.bundled import BUNDLED, bundled_dataset
from contexture.tasks.split import Split

__all__ = ["BUNDLED", "Split", "TableTask", "halves"]

MOST_PROCESSES = 4
"""The most classes for which a Gaussian process is among the baselines."""


@dataclass(frozen=True, kw_only=True)
class TableTask:
    """The rows of one table: by default the bundled `diabetes`.

    train_share: of all rows, rounded down, that each split learns from. most_held_out: rows scored in each split at
    most, so that a large table costs no more than a middling one. num_points: rows in an episode of `sample`, at most
    those of the table. The card carries the table's name and the metric for its target.

    >>> task = TableTask.bundled("iris")
    >>> split = next(task.splits(1, seed=0))
    >>> split.context(20).x.shape, split.test.time, split.test.y[0].bincount().tolist()
    (torch.Size([1, 20, 4]), 75, [25, 25, 25])
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="table",
        summary="The rows of a table: some are shown, others are predicted.",
        episodes="pairs",
        metric="relative-squared-error",
    )

    dataset: Dataset = field(default_factory=lambda: bundled_dataset("diabetes"), repr=False)
    train_share: float = 0.5
    most_held_out: int = 2_000
    num_points: int = 64

    def __post_init__(self) -> None:
        rows = self.dataset.num_rows
        if not 0 < self.train_share < 1:
            raise InputError(f"train_share must lie between 0 and 1, not at {self.train_share}")
        if self.most_held_out < 1 or self.num_points < 1:
            raise InputError("most_held_out and num_points must be at least 1")
        if not 1 <= self.num_train < rows:
            raise InputError(f"{self.dataset.source} has {rows} rows, too few to learn from a share {self.train_share}")
        # The class keeps the card by which it is registered; each table has a name and a metric of its own.
        card = replace(type(self).card, name=PurePath(self.dataset.source).stem)
        object.__setattr__(self, "card", replace(card, metric="log-loss") if self.dataset.classes else card)
        object.__setattr__(self, "num_points", min(self.num_points, rows))

    @classmethod
    def bundled(cls, name: str) -> "TableTask":
        """The task of a table that comes with scikit-learn, by name."""
        return cls(dataset=bundled_dataset(name))

    @property
    def num_train(self) -> int:
        """The rows of a training half, the largest context."""
        return int(self.dataset.num_rows * self.train_share)

    @property
    def num_test(self) -> int:
        """The rows on which each split is scored."""
        return min(self.dataset.num_rows - self.num_train, self.most_held_out)

    @property
    def schema(self) -> Schema:
        """What the columns mean."""
        return encode_schema(self.dataset.schema)

    @property
    def chance(self) -> float:
        """The metric of the best constant: the entropy of the classes' shares; 1 for a number's relative error."""
        if not self.dataset.classes:
            return 1.0
        shares = torch.from_numpy(self.dataset.y).bincount().double() / self.dataset.num_rows
        return float(torch.special.entr(shares).sum())

    def describe(self) -> list[str]:
        """What was read and inferred, and how the table is divided, one sentence a line."""
        left = self.dataset.num_rows - self.num_train - self.num_test
        unused = f", {left} in neither" if left else ""
        how = ", every class in proportion" if self.dataset.classes else ""
        return [
            *self.dataset.describe(),
            f"each split: {self.num_train} rows to learn from, {self.num_test} held out{unused}{how}",
        ]

    def splits(self, num_splits: int, *, seed: int) -> Iterator[Split]:
        """Divide the table anew `num_splits` times; split i of a seed is the same however many are asked for."""
        x, y = torch.from_numpy(self.dataset.x), torch.from_numpy(self.dataset.y)
        schema = self.schema
        for index in range(num_splits):
            train, test = halves(
                y if self.dataset.classes else torch.zeros_like(y),
                num_train=self.num_train,
                generator=generator(seed, "table split", index),
            )
            test = test[: self.num_test]
            yield Split(
                train=Pairs(x=x[None, train], y=y[None, train], schema=schema),
                test=Pairs(x=x[None, test], y=y[None, test], schema=schema),
            )

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Episodes of `num_points` different rows each, in random order."""
        shape = (batch, self.dataset.num_rows)
        order = torch.rand(shape, generator=generator, device=generator.device).argsort(dim=1)
        rows = order[:, : self.num_points].cpu()
        x, y = torch.from_numpy(self.dataset.x)[rows], torch.from_numpy(self.dataset.y)[rows]
        return Pairs(x=x, y=y, schema=self.schema).to(device=generator.device)

    def oracle(self) -> None:
        """Nobody knows what is optimal for a real table."""

    def baselines(self) -> Mapping[str, Learner]:
        """The classical learners that stand beside any other; those for numbers alone see standardised columns."""
        numbers: tuple[Learner, ...] = (Mean(), EvidenceRidge())
        classes: tuple[Learner, ...] = (Majority(), Logistic(), NaiveBayes())
        anything = (KNearestNeighbours(), RandomForest(), Boosting())
        # One Gaussian process against the rest for each class takes minutes where there are many.
        processes = (GaussianProcess(),) if len(self.dataset.classes) <= MOST_PROCESSES else ()
        chosen = (*(classes if self.dataset.classes else numbers), *anything, *processes)
        return {each.card.name: each if each.card.tables else Standardized(each) for each in chosen}


def halves(
    strata: Shaped[Tensor, " rows"], *, num_train: int, generator: torch.Generator
) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
    """Divide rows at random into `num_train` and the rest, both in random order, each stratum in proportion.

    Rows are shuffled, brought together by stratum in a random order of the strata, and taken at even steps from a
    random start (systematic sampling, Madow 1949): every row is taken with probability num_train / rows, and of the m
    rows of a stratum m * num_train / rows, to within one.

    >>> train, test = halves(torch.tensor([0] * 8 + [1] * 4), num_train=6, generator=torch.Generator().manual_seed(0))
    >>> sorted(train.tolist() + test.tolist()) == list(range(12)), int((train < 8).sum())
    (True, 4)
    """
    rows = len(strata)
    shuffled = torch.randperm(rows, generator=generator)
    values, codes = torch.unique(strata, return_inverse=True)
    turn = torch.randperm(len(values), generator=generator)
    together = shuffled[turn[codes[shuffled]].argsort(stable=True)]
    start = torch.randint(rows, (), generator=generator)
    taken = ((torch.arange(rows + 1) * num_train + start) // rows).diff() > 0
    train, test = together[taken], together[~taken]
    return (
        train[torch.randperm(len(train), generator=generator)],
        test[torch.randperm(len(test), generator=generator)],
    )
