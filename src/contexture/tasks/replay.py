"""Episodes that are drawn once and shown again and again, as where data are limited.

    a pool of `num_episodes` episodes of another task, drawn by a seed of its own;  each draw takes one of them

Training on a pool of prompts is how sample efficiency is measured: Pathak, Sen, Kong, Das 2023, "Transformers can
optimally learn regression mixture models", arXiv:2311.08362.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.protocols import Learner, Pairs, Task, TaskCard
from contexture.randomness import generator as derived
from contexture.tasks.draws import at_least, integers
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.named import as_task


@cache
def pool(task: Hashable, num_episodes: int, seed: int) -> Pairs:
    """The episodes: the same for the same task, number and seed."""
    assert isinstance(task, Task)
    drawn = task.sample(num_episodes, generator=derived(seed, "replay", num_episodes))
    assert isinstance(drawn, Pairs)
    return drawn


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """Episodes out of a fixed pool of another task's; nothing is known to be optimal for so many and no more.

    `task` is a regression, or {"name": .., "settings": {..}} of a registered one. Latents are those of the task.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="replay",
        summary="Episodes of another task out of a pool that is drawn once.",
        paper="Pathak et al.: Transformers can optimally learn regression mixture models",
        year=2023,
        episodes="pairs",
        metric="squared-error",
    )

    task: Task = field(default_factory=LinearRegression)
    num_episodes: int = 65536
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", as_task(self.task))
        at_least(1, num_episodes=self.num_episodes)
        if self.task.card.episodes != "pairs" or self.task.card.metric != "squared-error":
            raise InputError(f"a replay takes a regression family, not {self.task.card.name}")

    @property
    def pool(self) -> Pairs:
        """All episodes."""
        assert isinstance(self.task, Hashable)
        return pool(self.task, self.num_episodes, self.seed)

    @property
    def chance(self) -> float:
        """The variance of y over this very pool."""
        return float(self.pool.y.var(correction=0))

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes from the pool, with replacement."""
        return self.pool.select(integers(batch, below=self.num_episodes, generator=generator))

    def oracle(self) -> None:
        """None: what is optimal for the task is not for the pool, which can be learnt by heart."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The task's own, and its oracle."""
        found = {name: one for name, one in self.task.baselines().items() if isinstance(one, Learner)}
        oracle = self.task.oracle()
        return found | ({"oracle": oracle} if isinstance(oracle, Learner) else {})
