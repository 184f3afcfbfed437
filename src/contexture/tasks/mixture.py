"""A mixture of families: each episode comes from one of several tasks, and which one is hidden.

Yadlowsky, Doshi, Tripuraneni 2023, "Pretraining data mixtures enable narrow model selection capabilities in
transformer models".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from contexture.errors import InputError
from contexture.learners.oracles.evidence import BayesianLearner
from contexture.learners.oracles.model_average import ModelAverage
from contexture.protocols import Learner, Pairs, Task, TaskCard
from contexture.tasks.inputs import SaysInputs
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.named import as_task
from contexture.tasks.sparse_linear_regression import SparseLinearRegression


def _dense_and_sparse() -> tuple[Task, ...]:
    return LinearRegression(), SparseLinearRegression(num_features=8, num_points=25, num_nonzero=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Episodes of several regression families of one shape, each with a target of mean zero.

    `shares` are the families' probabilities. A family is a task, or {"name": .., "settings": {..}} of a registered one,
    as a file of settings holds it. The oracle averages the families' oracles by evidence; it is None where a
    family has none that gives a density, or where families draw x differently. Latents: component [batch] alone.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="mixture",
        summary="Each episode comes from one of several families: by default dense or sparse linear regression.",
        paper="Yadlowsky, Doshi, Tripuraneni: Pretraining data mixtures enable narrow model selection capabilities",
        year=2023,
        episodes="pairs",
        metric="squared-error",
    )

    tasks: tuple[Task, ...] = field(default_factory=_dense_and_sparse)
    shares: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(as_task(task) for task in self.tasks))
        object.__setattr__(self, "shares", tuple(self.shares))
        if len(self.tasks) < 2 or len(self.tasks) != len(self.shares):
            raise InputError(
                f"a mixture of {len(self.tasks)} tasks with {len(self.shares)} shares: give 2 or more of each"
            )
        if min(self.shares) <= 0 or not math.isclose(sum(self.shares), 1):
            raise InputError(f"shares must be positive and sum to one, not {self.shares}")
        for task in self.tasks:
            if task.card.episodes != "pairs" or task.card.metric != "squared-error":
                raise InputError(f"a mixture takes regression families, not {task.card.name}")

    @property
    def chance(self) -> float:
        """The families' chance levels, weighted by their shares: exact because all targets have mean zero."""
        return sum(share * task.chance for share, task in zip(self.shares, self.tasks, strict=True))

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw each episode's family, then as many episodes of each family as it has; latents: component [batch]."""
        shares = torch.tensor(self.shares, dtype=torch.float64, device=generator.device)
        component = torch.multinomial(shares, batch, replacement=True, generator=generator)
        parts = [self._part(index, int((component == index).sum()), generator) for index in range(len(self.tasks))]
        shapes = {tuple(part.x.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise InputError(f"the families of a mixture need one shape of episodes, but theirs are {sorted(shapes)}")
        place = component.argsort(stable=True).argsort()
        clean = [part.clean for part in parts if part.clean is not None]
        return Pairs(
            x=torch.cat([part.x for part in parts])[place],
            y=torch.cat([part.y for part in parts])[place],
            schema=parts[0].schema,
            clean=torch.cat(clean)[place] if len(clean) == len(parts) else None,
            latents={"component": component},
        )

    def _part(self, index: int, count: int, generator: torch.Generator) -> Pairs:
        episodes = self.tasks[index].sample(count, generator=generator)
        assert isinstance(episodes, Pairs)
        return episodes

    def oracle(self) -> Learner | None:
        """Bayesian model averaging over the families' oracles, or None."""
        inputs = {task.inputs if isinstance(task, SaysInputs) else None for task in self.tasks}
        oracles = [task.oracle() for task in self.tasks]
        learners = tuple(oracle for oracle in oracles if isinstance(oracle, BayesianLearner))
        if None in inputs or len(inputs) > 1 or len(learners) < len(oracles):
            return None
        return ModelAverage(learners=learners, shares=self.shares)

    def baselines(self) -> Mapping[str, Learner]:
        """Every family's baselines, and its oracle as the specialist that takes all episodes for its own."""
        found: dict[str, Learner] = {}
        for task in self.tasks:
            found |= {name: learner for name, learner in task.baselines().items() if isinstance(learner, Learner)}
            oracle = task.oracle()
            if isinstance(oracle, Learner):
                found[f"specialist-{task.card.name}"] = oracle
        return found
