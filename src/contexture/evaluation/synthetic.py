"""Scoring on a synthetic family, prequentially: y_t is predicted from x up to t and y before t.

A learner whose card says that it can only refit is fitted anew at each asked size, on the same examples and query.
Seconds per prediction are those of `predict` after the largest context, one query an episode, blocks of 64 episodes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.evaluation.footprint import Stopwatch, state_bytes
from contexture.evaluation.metrics import Metric, Truth
from contexture.evaluation.sources import Advance, Outcome, answer, check_pairs, on_cpu, take
from contexture.protocols import Learner, Pairs, Prediction, SequenceLearner, Target, Task
from contexture.randomness import generator

BLOCK = 64
"""Episodes that a learner sees in one call. Part of the address of every draw: changing it changes the episodes."""

NUM_TIMED = 4
"""Calls timed for a learner whose curve comes from one call; the first is a warm-up."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SyntheticSource:
    """Episodes of a synthetic family, for each seed in blocks; `scale` is the variance of all their targets."""

    blocks: tuple[tuple[Pairs, ...], ...]
    scale: float

    @classmethod
    def draw(cls, task: Task, *, episodes: int, seeds: Sequence[int]) -> "SyntheticSource":
        """Draw `episodes` episodes for each seed; the first ones do not depend on how many are asked for."""
        blocks = tuple(tuple(_draw(task, episodes, seed)) for seed in seeds)
        targets = torch.cat([block.y.double().flatten() for row in blocks for block in row])
        return cls(blocks=blocks, scale=float(targets.var(correction=0)))

    @property
    def most(self) -> int:
        """One less than an episode holds, since the last example is scored too."""
        return self.blocks[0][0].time - 1

    @property
    def num_seeds(self) -> int:
        """How many seeds there are rows for."""
        return len(self.blocks)

    def of_seed(self, index: int) -> "SyntheticSource":
        """The row of one seed alone."""
        return replace(self, blocks=(self.blocks[index],))

    @property
    def target(self) -> Target:
        """Whether numbers or classes are predicted."""
        return self.blocks[0][0].schema.task

    @property
    def halves(self) -> None:
        """Episodes are independent."""
        return None

    @property
    def timing(self) -> str:
        """What the seconds per prediction are."""
        return (
            f"Wall time to take in the largest context and answer one query, in batches of {self.blocks[0][0].batch} "
            "episodes, over the number of episodes; the median over batches after a warm-up."
        )

    def kept(self, learner: Learner | SequenceLearner, size: int) -> int:
        """The bytes that the learner keeps after `size` examples of the first episode."""
        return state_bytes(learner, self.blocks[0][0].select(torch.tensor([0])).prefix(size))

    def score(
        self, learner: Learner | SequenceLearner, *, context: Sequence[int], metric: Metric, advance: Advance
    ) -> Outcome:
        """Score y_t given everything before it, at each t in `context`."""
        pairs_learner = check_pairs(learner, self.target)
        if metric.scope == "set":
            raise InputError(f"{metric.label} judges the held-out rows of a table together, which this task has not")
        watch, notes = Stopwatch(), dict[str, None]()
        num_blocks = sum(len(row) for row in self.blocks)
        losses, answers, done = [], [], 0
        for row in self.blocks:
            scored = []
            for block in row:
                advance(done / num_blocks, "learning curve")
                scored.append(self._score_block(pairs_learner, block, context, metric, watch, notes))
                done += 1
            losses.append(torch.cat([loss for loss, _ in scored]))
            answers.append(torch.cat([values for _, values in scored]))
        if pairs_learner.card.prequential == "exact":
            advance(1.0, "timing")
            self._time(pairs_learner, max(context), watch)
        return Outcome(
            losses=torch.stack(losses),
            answers=torch.stack(answers).unsqueeze(3),
            seconds=watch.seconds,
            notes=tuple(notes),
        )

    def _score_block(
        self,
        learner: Learner,
        block: Pairs,
        context: Sequence[int],
        metric: Metric,
        watch: Stopwatch,
        notes: dict[str, None],
    ) -> tuple[Float[Tensor, "batch context"], Float[Tensor, "batch context *classes"]]:
        classes = block.schema.num_classes
        if learner.card.prequential == "exact":
            asked = torch.tensor(context)
            shown = block.prefix(max(context) + 1)
            return answer(
                lambda: take(on_cpu(learner.prequential(shown)), asked),
                metric,
                self._truth(block, asked),
                notes,
                num_classes=classes,
            )
        scored = []
        for size in context:
            call = _Refit(learner=learner, block=block, size=size, watch=watch, counts=size == max(context))
            scored.append(answer(call, metric, self._truth(block, torch.tensor([size])), notes, num_classes=classes))
        return torch.cat([loss for loss, _ in scored], dim=1), torch.cat([values for _, values in scored], dim=1)

    def _truth(self, block: Pairs, asked: Tensor) -> Truth:
        return Truth(
            y=block.y[:, asked],
            clean=None if block.clean is None else block.clean[:, asked],
            scale=torch.full((block.batch, 1), self.scale, dtype=torch.float64),
        )

    def _time(self, learner: Learner, size: int, watch: Stopwatch) -> None:
        for block in [block for row in self.blocks for block in row][:NUM_TIMED] or []:
            try:
                _Refit(learner=learner, block=block, size=size, watch=watch, counts=True)()
            except InputError:
                return


@dataclass(frozen=True, kw_only=True, slots=True)
class _Refit:
    """One call of `predict`: the first `size` examples of a block, and the next as the query."""

    learner: Learner
    block: Pairs
    size: int
    watch: Stopwatch
    counts: bool

    def __call__(self) -> Prediction:
        shown, query = self.block.prefix(self.size), self.block.x[:, self.size : self.size + 1]
        if not self.counts:
            return on_cpu(self.learner.predict(shown, query))
        return self.watch.time(lambda: on_cpu(self.learner.predict(shown, query)), num_predictions=self.block.batch)


def _draw(task: Task, episodes: int, seed: int) -> Iterator[Pairs]:
    for number, start in enumerate(range(0, episodes, BLOCK)):
        block = task.sample(BLOCK, generator=generator(seed, "evaluate", task.card.name, number))
        assert isinstance(block, Pairs)
        yield block.select(torch.arange(min(BLOCK, episodes - start)))
