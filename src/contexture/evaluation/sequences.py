"""Scoring on token sequences: each scored target after the tokens up to it, by how many tokens came before.

The score at size n is the mean over the scored positions t, counted from 0, with m < t <= n, m being the next smaller
size asked for. Sequences hold different numbers c_e of such positions, with scores that sum to s_e. The score is the
ratio R = sum s_e / sum c_e, and the value kept for a sequence is

    R + (s_e - R c_e) / mean(c),

whose mean is R and whose spread is that of the ratio to first order (Cochran 1977, section 6.3), so that intervals made
from these values are intervals of R.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.evaluation.footprint import KeepsTokenState, Stopwatch
from contexture.evaluation.metrics import Metric, Truth
from contexture.evaluation.sources import Advance, Outcome
from contexture.protocols import Learner, Prediction, SequenceLearner, Target, Task, Tokens
from contexture.randomness import generator

BLOCK = 16
"""Sequences that a learner sees in one call. Part of the address of every draw: changing it changes the sequences."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SequenceSource:
    """Token sequences, for each seed in blocks."""

    blocks: tuple[tuple[Tokens, ...], ...]

    @classmethod
    def draw(cls, task: Task, *, episodes: int, seeds: Sequence[int]) -> "SequenceSource":
        """Draw `episodes` sequences for each seed; the first ones do not depend on how many are asked for."""
        return cls(blocks=tuple(tuple(_draw(task, episodes, seed)) for seed in seeds))

    @property
    def most(self) -> int:
        """The tokens before the last one."""
        return self.blocks[0][0].ids.shape[1] - 1

    @property
    def num_seeds(self) -> int:
        """How many seeds there are rows for."""
        return len(self.blocks)

    def of_seed(self, index: int) -> "SequenceSource":
        """The row of one seed alone."""
        return replace(self, blocks=(self.blocks[index],))

    @property
    def target(self) -> Target:
        """A token is a class."""
        return "classification"

    @property
    def halves(self) -> None:
        """Sequences are independent."""
        return None

    @property
    def timing(self) -> str:
        """What the seconds per prediction are."""
        return (
            f"Wall time of one pass over a batch of {self.blocks[0][0].batch} sequences, over the number of their "
            "scored tokens; the median over batches after a warm-up."
        )

    def kept(self, learner: Learner | SequenceLearner, size: int) -> int:
        """The bytes that the learner keeps after `size` tokens: as it measures them, or else the tokens themselves."""
        if isinstance(learner, KeepsTokenState):
            return learner.kept_bytes(size)
        return size * self.blocks[0][0].ids.element_size()

    def score(
        self, learner: Learner | SequenceLearner, *, context: Sequence[int], metric: Metric, advance: Advance
    ) -> Outcome:
        """Score every target, grouped by how many tokens came before it."""
        if not isinstance(learner, SequenceLearner):
            raise InputError(f"{learner.card.name} reads pairs, but this task's episodes are tokens")
        if metric.scope == "set":
            raise InputError(f"{metric.label} judges the held-out rows of a table together, which this task has not")
        watch, done = Stopwatch(), 0
        num_blocks = sum(len(row) for row in self.blocks)
        sums, counts = [], []
        for row in self.blocks:
            for block in row:
                advance(done / num_blocks, "learning curve")
                scored, number = _score_block(learner, block, context, metric, watch)
                sums.append(scored)
                counts.append(number)
                done += 1
        values = _ratio_values(torch.cat(sums), torch.cat(counts))
        return Outcome(
            losses=values.reshape(len(self.blocks), -1, len(context)), answers=None, seconds=watch.seconds, notes=()
        )


def _score_block(
    learner: SequenceLearner, block: Tokens, context: Sequence[int], metric: Metric, watch: Stopwatch
) -> tuple[Float[Tensor, "batch context"], Float[Tensor, "batch context"]]:
    """Each sequence's sum of scores, and number of scored positions, in each group of positions."""
    sequence, position = block.mask.nonzero(as_tuple=True)
    logits = watch.time(lambda: learner.logits(block.ids, block.segments).cpu(), num_predictions=max(1, len(position)))
    prediction = Prediction(probabilities=logits[sequence, position].double().softmax(-1).unsqueeze(0))
    scores = metric(prediction, Truth(y=block.targets[sequence, position].unsqueeze(0)))[0]
    group = torch.searchsorted(torch.tensor(context), position)
    inside = group < len(context)
    cell = (sequence * len(context) + group)[inside]
    blank = torch.zeros(block.batch * len(context), dtype=torch.float64)
    sums = blank.scatter_add(0, cell, scores[inside])
    counts = blank.scatter_add(0, cell, torch.ones_like(scores[inside]))
    return sums.reshape(block.batch, -1), counts.reshape(block.batch, -1)


def _ratio_values(
    sums: Float[Tensor, "sequences context"], counts: Float[Tensor, "sequences context"]
) -> Float[Tensor, "sequences context"]:
    """One value for each sequence whose mean is the ratio; NaN in a group that no sequence has a position in."""
    ratio = sums.sum(0) / counts.sum(0)
    return ratio + (sums - ratio * counts) / counts.mean(0)


def usual_sizes(task: Task) -> tuple[int, ...]:
    """Sizes to score a task of tokens at: powers of two from the first scored position to the last, which ends them.

    The positions are those of 64 sequences.
    """
    source = SequenceSource.draw(task, episodes=64, seeds=(0,))
    scored = torch.cat([block.mask.any(0).nonzero()[:, 0] for row in source.blocks for block in row])
    first, last = int(scored.min()), int(scored.max())
    powers = [2**k for k in range(last.bit_length()) if first <= 2**k < last]
    return (*powers, last)


def _draw(task: Task, episodes: int, seed: int) -> Iterator[Tokens]:
    for number, start in enumerate(range(0, episodes, BLOCK)):
        block = task.sample(BLOCK, generator=generator(seed, "evaluate", task.card.name, number))
        assert isinstance(block, Tokens)
        wanted = slice(0, min(BLOCK, episodes - start))
        yield Tokens(
            ids=block.ids[wanted],
            targets=block.targets[wanted],
            mask=block.mask[wanted],
            vocabulary=block.vocabulary,
            segments=None if block.segments is None else block.segments[wanted],
            slices={name: values[wanted] for name, values in block.slices.items()},
        )
