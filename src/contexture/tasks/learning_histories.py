"""What algorithm distillation is trained on (Laskin et al., 2022, arXiv:2210.14215): whole learning histories.

    a source agent learns in a world, over many episodes; the target at every step is what it did next

A model that predicts the source's actions from all that came before, across episodes, has learned to learn as the
source does: acting by its predictions, it improves in worlds that it was never trained on. Of a history's episodes
every n-th is shown, so that it improves n times as fast as its source. Which histories are shown is decided by
`contexture.agents.history_filter`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.agents.history_filter import returns_of, utility, weights
from contexture.agents.history_set import HistorySet
from contexture.errors import InputError
from contexture.protocols import Learner, SequenceLearner, TaskCard, Trajectories
from contexture.randomness import generator as generator_of

Keep = Literal["all", "improving", "permuted"]


@dataclass(frozen=True, kw_only=True)
class LearningHistories:
    """Histories of an agent that learns, with what it did itself, or what is best, as the target of every step.

    histories: the set that is drawn from. every: one episode in so many is shown. keep: all histories alike, those that
    improve steadily more often than others, or, for comparison, the same weights given to the histories of a world in
    any order. balance: what stability counts against improvement.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="learning-histories",
        summary="Name what a learning agent did next, after all that it saw and did over many episodes.",
        paper="Laskin et al., In-context Reinforcement Learning with Algorithm Distillation, arXiv:2210.14215",
        year=2022,
        episodes="trajectories",
        metric="log-loss",
    )

    histories: HistorySet = field(default_factory=HistorySet)
    every: int = 4
    keep: Keep = "all"
    balance: float = 1.0
    targets: Literal["source", "best"] = "source"

    def __post_init__(self) -> None:
        if isinstance(self.histories, Mapping):
            object.__setattr__(self, "histories", HistorySet(**self.histories))
        if not 1 <= self.every <= self.histories.episodes:
            raise InputError(f"one episode in {self.every} cannot be shown of {self.histories.episodes}")
        if self.keep not in ("all", "improving", "permuted"):
            raise InputError(f"histories that are kept are all, improving or permuted, not {self.keep!r}")
        if self.targets not in ("source", "best"):
            raise InputError(f"targets are source or best, not {self.targets!r}")

    @property
    def environment(self) -> str:
        """The name of what is acted in."""
        return self.histories.environment

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it is built with."""
        return self.histories.settings

    @cached_property
    def _whole(self) -> Trajectories:
        return self.histories.collect(best=self.targets == "best")

    @cached_property
    def collected(self) -> Trajectories:
        """The whole set, with the episodes that are shown and the targets."""
        whole = self._whole
        stretch = self.histories.stretch
        if self.every > 1 and not bool(whole.starts[:, ::stretch].all()):
            raise InputError(f"episodes of {self.environment!r} differ in length, so every must be 1, not {self.every}")
        shown = torch.arange(0, self.histories.episodes, self.every)
        steps = (shown[:, None] * stretch + torch.arange(stretch)).flatten()
        targets = whole.actions if self.targets == "source" else whole.targets
        assert targets is not None
        assert whole.regret is not None
        return replace(
            whole,
            observations=whole.observations[:, steps],
            actions=whole.actions[:, steps],
            rewards=whole.rewards[:, steps],
            starts=whole.starts[:, steps],
            targets=targets[:, steps],
            regret=whole.regret[:, steps],
        )

    @cached_property
    def weights(self) -> Float[Tensor, "worlds repeats"]:
        """How often each history of each world is drawn, next to the others."""
        shape = (self.histories.worlds, self.histories.repeats)
        if self.keep == "all":
            return torch.ones(shape, dtype=torch.float64)
        returns = returns_of(self._whole.rewards, self.histories.stretch).to(torch.float64)
        highest = float(returns.max()) or 1.0
        found = weights(utility(returns, highest, balance=self.balance).view(shape))
        if self.keep == "improving":
            return found
        order = torch.rand(shape, generator=generator_of(self.histories.draw, "histories", "permuted")).argsort(1)
        return found.gather(1, order)

    @property
    def chance(self) -> float:
        """The entropy of the targets, whatever came before them."""
        targets = self.collected.targets
        assert targets is not None
        per_step = self._shares.unsqueeze(1).expand(targets.shape) / targets.shape[1]
        counts = torch.zeros(self.collected.num_actions, dtype=torch.float64)
        shares = counts.index_add(0, targets.flatten(), per_step.flatten())
        return float(torch.special.entr(shares).sum())

    @property
    def _shares(self) -> Float[Tensor, " batch"]:
        """The probability of every history: worlds alike, histories of a world by their weights."""
        return (self.weights / self.weights.sum(1, keepdim=True)).flatten() / self.weights.shape[0]

    def sample(self, batch: int, *, generator: torch.Generator) -> Trajectories:
        """Draw histories from the set."""
        chosen = torch.multinomial(self._shares, batch, replacement=True, generator=generator)
        drawn = self.collected
        assert drawn.targets is not None
        assert drawn.regret is not None
        return Trajectories(
            observations=drawn.observations[chosen],
            actions=drawn.actions[chosen],
            rewards=drawn.rewards[chosen],
            starts=drawn.starts[chosen],
            num_actions=drawn.num_actions,
            targets=drawn.targets[chosen],
            regret=drawn.regret[chosen],
            latents={name: value[chosen] for name, value in drawn.latents.items()},
        )

    def oracle(self) -> None:
        """None: who knows the source's next action after every history is an agent, and no learner of rows."""
        return None

    def baselines(self) -> Mapping[str, Learner | SequenceLearner]:
        """None: agents are compared by acting."""
        return {}
