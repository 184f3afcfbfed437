"""Scoring on one table: fit on the first n rows of a training half, predict every row of the held-out half.

The table is divided again for every split, and all learners get the same divisions. Seconds per prediction are those of
`predict` at the largest size, fit included, over the number of held-out rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.evaluation.footprint import Stopwatch, state_bytes
from contexture.evaluation.metrics import Metric, Truth
from contexture.evaluation.samples import Halves
from contexture.evaluation.sources import Advance, Outcome, answer, check_pairs, on_cpu
from contexture.protocols import Learner, Prediction, SequenceLearner, Target
from contexture.tasks.split import Split

__all__ = ["ANSWERS_KEPT", "Split", "SplitSource", "SplitTask"]

ANSWERS_KEPT = 64
"""Held-out rows of each split whose predictions are kept for distances between learners."""


@runtime_checkable
class SplitTask(Protocol):
    """A task over one table: it is divided at random, again and again, rather than sampled."""

    def splits(self, num_splits: int, *, seed: int) -> Iterable[Split]:
        """`num_splits` independent random divisions into a training half and a held-out half."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SplitSource:
    """The divisions of one table, for each seed."""

    splits: tuple[tuple[Split, ...], ...]

    @classmethod
    def draw(cls, task: SplitTask, *, episodes: int, seeds: Sequence[int]) -> "SplitSource":
        """Divide the table `episodes` times for each seed."""
        return cls(splits=tuple(tuple(task.splits(episodes, seed=seed)) for seed in seeds))

    @property
    def most(self) -> int:
        """The rows of the smallest training half."""
        return min(split.train.time for row in self.splits for split in row)

    @property
    def num_seeds(self) -> int:
        """How many seeds there are rows of divisions for."""
        return len(self.splits)

    def of_seed(self, index: int) -> "SplitSource":
        """The divisions of one seed alone."""
        return replace(self, splits=(self.splits[index],))

    @property
    def target(self) -> Target:
        """Whether numbers or classes are predicted."""
        return self.splits[0][0].train.schema.task

    @property
    def halves(self) -> Halves:
        """The sizes of the two halves."""
        first = self.splits[0][0]
        return Halves(num_train=first.train.time, num_test=first.test.time)

    @property
    def timing(self) -> str:
        """What the seconds per prediction are."""
        return (
            "Wall time to fit the largest context and predict all held-out rows, over the number of those rows "
            f"({self.halves.num_test}); the median over splits after a warm-up."
        )

    def kept(self, learner: Learner | SequenceLearner, size: int) -> int:
        """The bytes that the learner keeps after `size` rows of the first training half."""
        return state_bytes(learner, self.splits[0][0].train.prefix(size))

    def score(
        self, learner: Learner | SequenceLearner, *, context: Sequence[int], metric: Metric, advance: Advance
    ) -> Outcome:
        """Score the held-out half after the first n rows of the training half, at each n in `context`."""
        pairs_learner = check_pairs(learner, self.target)
        watch, notes = Stopwatch(), dict[str, None]()
        calls = sum(len(row) for row in self.splits) * len(context)
        queries = min(ANSWERS_KEPT, *(split.test.time for row in self.splits for split in row))
        losses, answers, done = [], [], 0
        for row in self.splits:
            for split in row:
                for size in context:
                    advance(done / calls, f"{size} examples")
                    call = _Fit(learner=pairs_learner, split=split, size=size, watch=watch, counts=size == max(context))
                    loss, values = answer(
                        call, metric, _truth(split), notes, num_classes=split.train.schema.num_classes
                    )
                    losses.append(loss.mean())
                    answers.append(values[0, :queries])
                    done += 1
        shape = (len(self.splits), len(self.splits[0]), len(context))
        joined: Float[Tensor, "seeds episodes context queries *classes"] = torch.stack(answers).reshape(
            *shape, queries, *answers[0].shape[1:]
        )
        return Outcome(
            losses=torch.stack(losses).reshape(shape), answers=joined, seconds=watch.seconds, notes=tuple(notes)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """One call of `predict`: the first `size` rows of the training half, and all of the held-out half as queries."""

    learner: Learner
    split: Split
    size: int
    watch: Stopwatch
    counts: bool

    def __call__(self) -> Prediction:
        shown, queries = self.split.train.prefix(self.size), self.split.test.x
        if not self.counts:
            return on_cpu(self.learner.predict(shown, queries))
        return self.watch.time(lambda: on_cpu(self.learner.predict(shown, queries)), num_predictions=queries.shape[1])


def _truth(split: Split) -> Truth:
    """The held-out targets, and their squared error about the mean of the whole training half."""
    if split.train.schema.task == "classification":
        return Truth(y=split.test.y)
    centre = split.train.y.double().mean(1, keepdim=True)
    scale = (split.test.y.double() - centre).square().mean(1, keepdim=True)
    return Truth(y=split.test.y, clean=split.test.clean, scale=scale)
