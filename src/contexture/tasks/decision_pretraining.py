"""What a decision-pretrained transformer is trained on (Lee et al., 2023, arXiv:2306.14892).

    a world is drawn; a behaviour acts in it; the target at every step is a best action there

A model that minimises the log-loss says, after any history, how likely each action is the best one, so that acting by
its probabilities is posterior sampling. The behaviour is one that ignores rewards, `contexture.agents.mixed_policy`,
unless another agent is named: how far its histories are from those of who acts later is how far what was learned from
them can be off (Lin et al., 2023, arXiv:2310.08566).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from contexture import discovery
from contexture.agents.mixed_policy import MixedPolicy
from contexture.agents.roll_out import best_actions, choose, roll_out
from contexture.environments.choice import build_environment
from contexture.errors import InputError
from contexture.models.state import repeat_state
from contexture.protocols import Environment, Learner, SequenceLearner, TaskCard, Trajectories
from contexture.randomness import generator as generator_of


@dataclass(frozen=True, kw_only=True)
class DecisionPretraining:
    """Histories of a behaviour, with a best action as the target of every step.

    environment: a registered name; settings: what it is built with. steps: the length of a history. shortest: if given,
    the histories of one draw have one length between it and `steps`, drawn evenly on a logarithmic scale, as most of
    what there is to learn is learned from the first steps. targets: a best action, or what the behaviour does itself.
    behaviour: the registered name of an agent for that environment.
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="decision-pretraining",
        summary="Name a best action after a history of somebody else's actions and what they brought.",
        paper="Lee et al., Supervised Pretraining Can Learn In-Context Reinforcement Learning, arXiv:2306.14892",
        year=2023,
        episodes="trajectories",
        metric="log-loss",
    )

    environment: str = "gaussian-bandit"
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 200
    shortest: int | None = None
    targets: Literal["best", "behaviour"] = "best"
    behaviour: str = MixedPolicy.card.name

    def __post_init__(self) -> None:
        if self.steps < 1 or not 1 <= (self.shortest or 1) <= self.steps:
            raise InputError(f"a history needs at least one step, not {self.shortest or ''} to {self.steps}")
        if self.targets not in ("best", "behaviour"):
            raise InputError(f"targets are best or behaviour, not {self.targets!r}")

    @cached_property
    def acted_in(self) -> Environment:
        """The environment itself."""
        return build_environment(self.environment, self.settings)

    @property
    def chance(self) -> float:
        """Which arm of a bandit is best is anybody's guess; elsewhere the entropy of the targets of 512 histories."""
        if self.acted_in.horizon == 1:
            return math.log(self.acted_in.num_actions)
        targets = self.sample(512, generator=generator_of("chance", self.card.name)).targets
        assert targets is not None
        shares = targets.flatten().bincount(minlength=self.acted_in.num_actions) / targets.numel()
        return float(torch.special.entr(shares).sum())

    def sample(self, batch: int, *, generator: torch.Generator) -> Trajectories:
        """Draw worlds, let the behaviour act, and say what would have been best."""
        drawn = self._histories(batch, self._length(generator), generator)
        return drawn if self.targets == "best" else replace(drawn, targets=drawn.actions)

    def _histories(self, batch: int, steps: int, generator: torch.Generator) -> Trajectories:
        ignorant = self.behaviour == MixedPolicy.card.name
        if self.acted_in.horizon == 1 and ignorant:
            return self._pulls(batch, steps, generator)
        seed = int(torch.randint(2**62, (1,), generator=generator))

        def label(world: Any) -> Tensor:
            return choose(best_actions(self.acted_in, world).to(torch.float64), generator=generator)

        behaviour = MixedPolicy(self.acted_in) if ignorant else discovery.find(self.behaviour, "agents")(self.acted_in)
        return roll_out(behaviour, self.acted_in, worlds=batch, steps=steps, seed=seed, label=label)

    def _length(self, generator: torch.Generator) -> int:
        if self.shortest is None:
            return self.steps
        share = float(torch.rand(1, generator=generator))
        stretch: float = (self.steps / self.shortest) ** share
        return round(self.shortest * stretch)

    def _pulls(self, batch: int, steps: int, generator: torch.Generator) -> Trajectories:
        """A bandit's pulls leave nothing behind, so all of them can be made at once."""
        bandit, shape = self.acted_in, (batch, steps)
        world = bandit.begin(batch, generator=generator)
        habit = MixedPolicy(bandit).begin(batch, generator=generator)
        actions = torch.multinomial(habit.probabilities, steps, replacement=True, generator=generator)
        copies = repeat_state(world, steps)
        outcome, _ = bandit.step(copies, actions.flatten(), generator=generator)
        best = choose(best_actions(bandit, world).to(torch.float64), generator=generator)
        return Trajectories(
            observations=bandit.observation(copies).view(*shape, bandit.num_features),
            actions=actions,
            rewards=outcome.reward.view(shape),
            starts=torch.ones(shape, dtype=torch.bool),
            num_actions=bandit.num_actions,
            targets=best.unsqueeze(1).expand(shape).contiguous(),
            regret=bandit.regret(copies, actions.flatten()).view(shape),
            latents=bandit.latents(world),
        )

    def oracle(self) -> None:
        """None: who knows the best policy after every history is an agent, and no learner of rows."""
        return None

    def baselines(self) -> Mapping[str, Learner | SequenceLearner]:
        """None: agents are compared by acting."""
        return {}
