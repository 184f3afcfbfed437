"""Learning from rewards: the policy's gradient with a learned baseline (Williams, 1992; Mnih et al., 2016).

    R_t = r_t + discount R_{t+1},   A_t = R_t - V_t
    loss = mean over steps of  -log p(a_t) A_t  +  value (R_t - V_t)^2  -  entropy H(p),   A_t taken as given

Each update plays one episode in each of `worlds` fresh worlds with the model as it is, carrying its state, and runs the
model once over all that was played. Models that differ in seed and learning rate are trained as a cohort; the worlds
and the draws of a member's actions are functions of its seed and of the update.
Shapes: everything played is [members * worlds, steps], members outermost; `alive` marks steps before the episode's end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.agents.roll_out import choose_by
from contexture.errors import InputError
from contexture.models.actor_critic import ActorCritic
from contexture.models.decisions import DecisionModelConfig
from contexture.protocols import Environment
from contexture.randomness import generator
from contexture.training.cohort import clip_gradients, member_parameters, share_gradients, stack, unstack
from contexture.training.config import OptimiserConfig
from contexture.training.optimiser import MemberOptimiser


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorCriticConfig:
    """Everything that decides what is learned; members of a cohort differ in seed and optimiser alone."""

    model: DecisionModelConfig
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    worlds: int = 32
    discount: float = 0.95
    value: float = 0.5
    entropy: float = 0.01
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.worlds < 1 or not 0 <= self.discount <= 1 or self.clip <= 0:
            raise InputError(
                f"learning from rewards needs worlds, a discount between 0 and 1 and a clip above 0, not "
                f"{self.worlds}, {self.discount} and {self.clip}"
            )


class Played(NamedTuple):
    """One episode in every world."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    starts: Tensor
    alive: Tensor


class ActorCriticTrainer:
    """Models that learn to act in an environment, a cohort of them.

    >>> from contexture.environments.memory_length import MemoryLength
    >>> from contexture.models.backbone import BackboneConfig
    >>> shape = DecisionModelConfig(num_actions=2, num_features=3, backbone=BackboneConfig(pattern="softmax", width=8))
    >>> trainer = ActorCriticTrainer(MemoryLength(length=2), [ActorCriticConfig(model=shape, worlds=4)])
    >>> tuple(trainer.step(0).shape)
    (1, 4)
    """

    def __init__(self, environment: Environment, configs: Sequence[ActorCriticConfig]) -> None:
        self.environment, self.configs, self.config = environment, tuple(configs), configs[0]
        for index, config in enumerate(configs):
            if replace(config, seed=0, optimiser=self.config.optimiser) != replace(self.config, seed=0):
                raise InputError(f"member {index} of the cohort differs from member 0 in more than seed and optimiser")
        models = [ActorCritic(one.model, generator=generator(one.seed, "model")) for one in configs]
        self.model = models[0] if len(models) == 1 else stack(models)
        self.members = member_parameters(self.model)
        self.optimiser = MemberOptimiser(self.members, [config.optimiser for config in configs])

    def step(self, update: int) -> Float[Tensor, "members worlds"]:
        """Play, learn from it, and return what every world's episode brought."""
        played = self.play(update)
        self.model.zero_grad(set_to_none=True)
        torch.autograd.backward(self.losses(played).sum())
        clip_gradients(self.model, self.config.clip)
        share_gradients(self.model, self.members)
        self.optimiser.step(1.0)
        return played.rewards.sum(1).view(len(self.configs), -1)

    @torch.no_grad()
    def play(self, update: int) -> Played:
        """One episode in every member's worlds."""
        environment, horizon = self.environment, self.environment.horizon
        parts = [self._part(config.seed, update) for config in self.configs]
        world, drawn = _joined([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        noise = generator(self.config.seed, "noise", update)
        state = self.model.init_state(len(drawn), device="cpu", dtype=torch.get_default_dtype())
        alive, seen = torch.ones(len(drawn), dtype=torch.bool), []
        for step in range(horizon):
            observation = environment.observation(world)
            scores, state = self.model.decide(observation, state)
            action = choose_by(scores.softmax(1), drawn[:, step : step + 1])
            outcome, world = environment.step(world, action, generator=noise)
            start = torch.full_like(alive, step == 0)
            seen.append((observation, action, outcome.reward * alive, start, alive))
            state = self.model.observe(state, action, outcome.reward, torch.zeros_like(alive))
            alive = alive & ~outcome.done
            if not bool(alive.any()):
                break
        return Played(*(torch.stack(column, 1) for column in zip(*seen, strict=True)))

    def losses(self, played: Played) -> Float[Tensor, " members"]:
        """Each member's loss over its own steps."""
        config, alive = self.config, played.alive.to(played.rewards.dtype)
        scores, values = self.model.judge(*played[:4])
        later, returns = torch.zeros_like(played.rewards[:, 0]), []
        for reward in reversed(played.rewards.unbind(1)):
            later = reward + config.discount * later
            returns.append(later)
        earned = torch.stack(returns[::-1], 1)
        logs = scores.log_softmax(-1)
        taken = logs.gather(2, played.actions.unsqueeze(2)).squeeze(2)
        surprise = -(logs.exp() * logs).sum(-1)
        each = (
            -taken * (earned - values).detach() + config.value * (earned - values).square() - config.entropy * surprise
        )
        members = len(self.configs)
        return (each * alive).view(members, -1).sum(1) / alive.view(members, -1).sum(1)

    def plain_models(self) -> list[ActorCritic]:
        """Every member as a plain model."""
        if len(self.configs) == 1:
            return [self.model]
        return [unstack(self.model, member) for member in range(len(self.configs))]

    def _part(self, seed: int, update: int) -> tuple[Any, Tensor]:
        """A member's worlds, and the numbers by which its actions are drawn."""
        worlds = self.config.worlds
        world = self.environment.begin(worlds, generator=generator(seed, "worlds", update))
        return world, torch.rand(worlds, self.environment.horizon, generator=generator(seed, "actions", update))


def _joined(worlds: list[Any]) -> Any:
    """Worlds of several members as one batch."""
    return type(worlds[0])(*(torch.cat(column) for column in zip(*worlds, strict=True)))
