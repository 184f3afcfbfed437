"""The control for learning in context: another task whose labels are permuted within each episode.

Inputs and targets keep their distributions, and only what ties them together is gone: a learner that still beats the
chance level does not owe it to the examples. Min et al. 2022, "Rethinking the role of demonstrations".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.protocols import Learner, Pairs, SequenceLearner, Task, TaskCard
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.logistic_regression import LogisticRegression


def shuffle_labels(episodes: Pairs, *, generator: torch.Generator) -> Pairs:
    """The same inputs with y (and clean alongside) permuted within each episode; latents: permutation added."""
    scores = torch.rand(episodes.y.shape, generator=generator, device=generator.device)
    permutation = scores.argsort(1).to(episodes.y.device)
    return Pairs(
        x=episodes.x,
        y=episodes.y.gather(1, permutation),
        schema=episodes.schema,
        clean=None if episodes.clean is None else episodes.clean.gather(1, permutation),
        latents={**episodes.latents, "permutation": permutation},
    )


def _shuffled(task: Task, batch: int, generator: torch.Generator) -> Pairs:
    episodes = task.sample(batch, generator=generator)
    assert isinstance(episodes, Pairs)
    return shuffle_labels(episodes, generator=generator)


def _check_metric(task: Task, metric: str, wrapper: str) -> None:
    if task.card.episodes != "pairs" or task.card.metric != metric:
        raise InputError(f"{wrapper} takes tasks of pairs scored by {metric}, not {task.card.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledLabels:
    """A regression task with y permuted within each episode."""

    card: ClassVar[TaskCard] = TaskCard(
        name="shuffled-labels",
        summary="Control: another regression task whose targets are permuted within each episode.",
        paper="Min et al.: Rethinking the role of demonstrations",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    task: Task = field(default_factory=LinearRegression)

    def __post_init__(self) -> None:
        _check_metric(self.task, self.card.metric, self.card.name)

    @property
    def chance(self) -> float:
        """The chance level of the task itself: a permutation leaves the targets' distribution as it is."""
        return self.task.chance

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw the task's episodes and permute; latents: the task's own and permutation [batch, time]."""
        return _shuffled(self.task, batch, generator)

    def oracle(self) -> None:
        """None: the targets shown so far still say something about the spread of the rest."""
        return None

    def baselines(self) -> Mapping[str, Learner | SequenceLearner]:
        """The task's own."""
        return self.task.baselines()


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledClasses:
    """A classification task with classes permuted within each episode."""

    card: ClassVar[TaskCard] = TaskCard(
        name="shuffled-classes",
        summary="Control: another classification task whose classes are permuted within each episode.",
        paper="Min et al.: Rethinking the role of demonstrations",
        year=2022,
        episodes="pairs",
        metric="log-loss",
    )

    task: Task = field(default_factory=LogisticRegression)

    def __post_init__(self) -> None:
        _check_metric(self.task, self.card.metric, self.card.name)

    @property
    def chance(self) -> float:
        """The chance level of the task itself: a permutation leaves the classes' shares as they are."""
        return self.task.chance

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw the task's episodes and permute; latents: the task's own and permutation [batch, time]."""
        return _shuffled(self.task, batch, generator)

    def oracle(self) -> None:
        """None: the classes shown so far still say something about the rest."""
        return None

    def baselines(self) -> Mapping[str, Learner | SequenceLearner]:
        """The task's own."""
        return self.task.baselines()
