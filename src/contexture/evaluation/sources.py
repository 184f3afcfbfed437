"""What every source of scored episodes shares: its protocol, what scoring gives, and answering or refusing.

A source is drawn once and scored with every learner, so that all of them see the same episodes: synthetic families
(`synthetic`), one table split many times (`splits`), token sequences (`sequences`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.evaluation.metrics import Metric, Truth
from contexture.evaluation.samples import Halves
from contexture.protocols import Learner, Prediction, SequenceLearner, Target

Advance = Callable[[float, str], None]
"""Told the share done, 0 to 1, and what is being done."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """What scoring one learner gave: losses and answers as in `CurveSamples`, seconds per prediction, notes."""

    losses: Float[Tensor, "seeds episodes context"]
    answers: Float[Tensor, "seeds episodes context queries *classes"] | None
    seconds: float
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Episodes, drawn once, that any number of learners are scored on."""

    @property
    def most(self) -> int:
        """The largest number of examples that can be shown before a scored one."""
        ...

    @property
    def num_seeds(self) -> int:
        """How many seeds episodes were drawn for."""
        ...

    def of_seed(self, index: int) -> "Source":
        """The episodes of one seed alone."""
        ...

    @property
    def target(self) -> Target:
        """Whether numbers or classes are predicted."""
        ...

    @property
    def halves(self) -> Halves | None:
        """The sizes of a table's two halves; None where episodes are independent."""
        ...

    @property
    def timing(self) -> str:
        """What the seconds per prediction are, in one sentence."""
        ...

    def kept(self, learner: Learner | SequenceLearner, size: int) -> int:
        """The bytes that the learner keeps after `size` examples of one episode."""
        ...

    def score(
        self, learner: Learner | SequenceLearner, *, context: Sequence[int], metric: Metric, advance: Advance
    ) -> Outcome:
        """Score after each number of examples."""
        ...


def take(prediction: Prediction, queries: Int[Tensor, " chosen"]) -> Prediction:
    """The predictions for the chosen queries, in the order asked."""
    return _each(prediction, lambda value: value[:, queries])


def on_cpu(prediction: Prediction) -> Prediction:
    """The prediction in main memory; copying it there waits for a device to finish, which timing has to include."""
    return _each(prediction, lambda value: value.detach().cpu())


def _each(prediction: Prediction, change: Callable[[Tensor], Tensor]) -> Prediction:
    def changed(value: Tensor | None) -> Tensor | None:
        return None if value is None else change(value)

    return Prediction(
        mean=changed(prediction.mean),
        variance=changed(prediction.variance),
        probabilities=changed(prediction.probabilities),
        levels=prediction.levels,
        quantiles=changed(prediction.quantiles),
    )


def answer(
    call: Callable[[], Prediction], metric: Metric, truth: Truth, notes: dict[str, None], *, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Ask a learner and score what it says: the metric's result and the predicted values, in fp64.

    A learner that refuses (raises InputError) scores NaN, and its sentence is added to `notes`.
    """
    try:
        prediction = call()
    except InputError as refusal:
        notes[str(refusal)] = None
        blank = torch.full(truth.y.shape, torch.nan, dtype=torch.float64)
        values = blank.unsqueeze(-1).expand(*blank.shape, num_classes) if num_classes else blank
        return (blank if metric.scope == "row" else blank[:, 0]), values
    scores = metric(prediction, truth)
    if not scores.isfinite().all():
        notes[_why_not_finite(prediction, metric)] = None
    return scores, prediction.value.double()


def _why_not_finite(prediction: Prediction, metric: Metric) -> str:
    if not prediction.value.isfinite().all():
        return "some predictions are not finite"
    if metric.scope == "set":
        return f"{metric.label} is not defined on held-out rows of a single class"
    return f"it predicts no interval, which {metric.label} needs"


def check_pairs(learner: Learner | SequenceLearner, target: Target) -> Learner:
    """The learner, if it reads pairs and predicts this kind of target; InputError otherwise."""
    if not isinstance(learner, Learner):
        raise InputError(f"{learner.card.name} reads tokens, but this task's episodes are pairs")
    if target not in learner.card.targets:
        wanted = "numbers" if target == "regression" else "classes"
        raise InputError(f"{learner.card.name} does not predict {wanted}, which this task asks for")
    return learner
