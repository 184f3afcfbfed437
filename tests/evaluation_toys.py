"""Small tasks and learners with known answers, for the tests of evaluation and reports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import Learner, LearnerCard, Pairs, Prediction, Schema, TaskCard
from contexture.tasks.split import Split

BOTH = frozenset({"regression", "classification"})
NUMBERS = frozenset({"regression"})


class _FromPredict:
    """Prequential by predicting each position from its prefix."""

    def prequential(self, episodes: Pairs) -> Prediction:
        answers = [self.predict(episodes.prefix(t), episodes.x[:, t : t + 1]) for t in range(episodes.time)]
        if answers[0].mean is None:
            return Prediction(probabilities=torch.cat([a.probabilities for a in answers], 1))
        variance = None if answers[0].variance is None else torch.cat([a.variance for a in answers], 1)
        return Prediction(mean=torch.cat([a.mean for a in answers], 1), variance=variance)


class Mean(_FromPredict):
    """The mean of the targets shown, or the shares of the classes shown, one more of each."""

    card = LearnerCard(name="mean", summary="the mean", kind="classical", targets=BOTH)

    def predict(self, context: Pairs, queries: Tensor) -> Prediction:
        batch, num_queries = queries.shape[:2]
        classes = context.schema.num_classes
        if classes:
            counts = torch.nn.functional.one_hot(context.y, classes).sum(1).double() + 1
            shares = counts / counts.sum(-1, keepdim=True)
            return Prediction(probabilities=shares.unsqueeze(1).expand(batch, num_queries, classes))
        mean = context.y.mean(1) if context.time else torch.zeros(batch, dtype=torch.float64)
        return Prediction(mean=mean.unsqueeze(1).expand(batch, num_queries))


@dataclass(frozen=True)
class Ridge(_FromPredict):
    """Ridge regression, with the predictive variance of the Gaussian model of that prior and noise."""

    strength: float = 0.25
    card: ClassVar[LearnerCard] = LearnerCard(name="ridge", summary="ridge", kind="classical", targets=NUMBERS)

    def predict(self, context: Pairs, queries: Tensor) -> Prediction:
        x, eye = context.x, torch.eye(context.x.shape[2], dtype=torch.float64)
        gram = x.mT @ x + self.strength * eye
        weights = torch.linalg.solve(gram, x.mT @ context.y.unsqueeze(-1))
        spread = (queries @ torch.linalg.inv(gram) * queries).sum(-1)
        return Prediction(mean=(queries @ weights).squeeze(-1), variance=self.strength * (1 + spread))


@dataclass(frozen=True)
class Refitted(Ridge):
    """The same, said to need a new fit at each size; it counts its calls."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="refitted", summary="refitted ridge", kind="in-context", targets=NUMBERS, prequential="refit"
    )

    def prequential(self, episodes: Pairs) -> Prediction:
        raise AssertionError("a learner that refits is never asked for every prefix")


class Shy(Mean):
    """Refuses more than three examples."""

    card = LearnerCard(name="shy", summary="refuses", kind="online", targets=BOTH, prequential="refit")

    def predict(self, context: Pairs, queries: Tensor) -> Prediction:
        if context.time > 3:
            raise InputError("shy takes at most 3 examples")
        return super().predict(context, queries)


class Impatient(Mean):
    """Interrupted by its user."""

    card = LearnerCard(name="impatient", summary="interrupted", kind="classical", targets=BOTH)

    def prequential(self, episodes: Pairs) -> Prediction:
        raise KeyboardInterrupt


@dataclass(frozen=True, kw_only=True)
class Line:
    """y = w x + noise with Gaussian w, x and noise: Bayes ridge of strength noise^2 is its oracle."""

    num_features: int = 2
    length: int = 9
    noise: float = 0.5
    card: ClassVar[TaskCard] = TaskCard(name="line", summary="a line", episodes="pairs", metric="squared-error")

    @property
    def chance(self) -> float:
        return self.num_features + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        x, w = normal(batch, self.length, self.num_features), normal(batch, self.num_features, 1)
        clean = (x @ w).squeeze(-1)
        y = clean + self.noise * normal(batch, self.length)
        return Pairs(x=x, y=y, clean=clean, schema=Schema.numeric(self.num_features))

    def oracle(self) -> Learner:
        return Ridge(strength=self.noise**2)

    def baselines(self) -> Mapping[str, Learner]:
        return {"mean": Mean()}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of 40 rows, y = x1 - x2 + noise; or, with classes, the sign of that."""

    classes: bool = False
    rows: int = 40

    @property
    def card(self) -> TaskCard:
        metric = "log-loss" if self.classes else "relative-squared-error"
        return TaskCard(name="toy-table", summary="a table", episodes="pairs", metric=metric)

    @property
    def chance(self) -> float:
        return 0.6931 if self.classes else 1.0

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        raise AssertionError("a table is split, not sampled")

    def oracle(self) -> None:
        return None

    def baselines(self) -> Mapping[str, Learner]:
        return {"mean": Mean()}

    def splits(self, num_splits: int, *, seed: int) -> Iterator[Split]:
        made = torch.Generator().manual_seed(7)
        x = torch.randn(1, self.rows, 2, dtype=torch.float64, generator=made)
        y = x[..., 0] - x[..., 1] + 0.3 * torch.randn(1, self.rows, dtype=torch.float64, generator=made)
        schema = Schema.classes(2, 2) if self.classes else Schema.numeric(2)
        y = (y > 0).long() if self.classes else y
        shuffle, half = torch.Generator().manual_seed(seed), self.rows // 2
        for _ in range(num_splits):
            order = torch.randperm(self.rows, generator=shuffle)
            parts = [Pairs(x=x[:, i], y=y[:, i], schema=schema) for i in (order[:half], order[half:])]
            yield Split(train=parts[0], test=parts[1])
