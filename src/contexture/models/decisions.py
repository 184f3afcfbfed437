"""A sequence model that decides: at every step, scores for the actions from all that was seen before.

    token t = (o_{t-1}, a_{t-1}, r_{t-1}, known,  o_t, start_t)    the step before, and where it led
    scores of step t are read at token t

One token a step, so that a decision costs one step of the backbone and a carried state is all that is kept. The first
token knows of no step before it; `start` marks the first step of an episode, which no action led to. In a bandit there
is nothing to see, and a token is an action with its reward (Lee et al., 2023, arXiv:2306.14892, whose query token is
our first one).

observations: [batch, time, features]; actions: int64 [batch, time]; rewards: [batch, time]; starts: bool [batch, time];
scores: [batch, time, actions].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.models.backbone import Backbone, BackboneConfig, BackboneState
from contexture.ops.chunks import wide


@dataclass(frozen=True, kw_only=True)
class DecisionModelConfig:
    """The shape of a model that decides; `num_features` is the size of an observation, 0 for bandits."""

    num_actions: int
    num_features: int = 0
    backbone: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))
        if self.num_actions < 2 or self.num_features < 0:
            raise InputError(
                f"a model that decides needs at least two actions and no fewer than no features, "
                f"not {self.num_actions} and {self.num_features}"
            )


class DecisionState(NamedTuple):
    """The backbone's state and the step before: observation [batch, features], action int64 [batch], reward [batch],
    whether there was one, and whether an episode starts now, bool [batch]."""

    backbone: BackboneState
    observation: Tensor
    action: Tensor
    reward: Tensor
    known: Tensor
    start: Tensor


class DecisionModel(nn.Module):
    """An embedding of steps, a causal backbone and a table of scores.

    >>> backbone = BackboneConfig(pattern="softmax", width=8, num_heads=2)
    >>> config = DecisionModelConfig(num_actions=3, backbone=backbone)
    >>> model = DecisionModel(config, generator=torch.Generator().manual_seed(0))
    >>> steps = (torch.zeros(2, 4, 0), torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4))
    >>> model(*steps, torch.ones(2, 4, dtype=torch.bool)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(self, config: DecisionModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.embed = Linear(2 * config.num_features + config.num_actions + 3, width, generator=generator)
        self.backbone = Backbone(config.backbone, generator=generator)
        self.head = Linear(width, config.num_actions, generator=generator)

    def forward(
        self,
        observations: Float[Tensor, "batch time features"],
        actions: Int[Tensor, "batch time"],
        rewards: Float[Tensor, "batch time"],
        starts: Shaped[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time actions"]:
        """Score the actions of every step; what was done and earned at t is first seen at t + 1."""
        return self._score(self.hidden(observations, actions, rewards, starts))

    def hidden(
        self,
        observations: Float[Tensor, "batch time features"],
        actions: Int[Tensor, "batch time"],
        rewards: Float[Tensor, "batch time"],
        starts: Shaped[Tensor, "batch time"],
    ) -> Float[Tensor, "batch time width"]:
        """What the backbone makes of every step, from which the scores are read."""
        before = self._steps(observations, actions, rewards, torch.ones_like(starts))[:, :-1]
        out: Tensor = self.backbone(self._tokens(pad(before, (0, 0, 1, 0)), observations, starts))
        return out

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> DecisionState:
        """The state before the first step."""
        none = torch.zeros(batch, device=device, dtype=torch.bool)
        return DecisionState(
            self.backbone.init_state(batch, device=device, dtype=dtype),
            torch.zeros(batch, self.config.num_features, device=device, dtype=dtype),
            torch.zeros(batch, device=device, dtype=torch.int64),
            torch.zeros(batch, device=device, dtype=dtype),
            none,
            ~none,
        )

    def decide(
        self, observation: Float[Tensor, "batch features"], state: DecisionState
    ) -> tuple[Float[Tensor, "batch actions"], DecisionState]:
        """Score the actions of the next step; `observe` has to say what came of it before the one after."""
        step = self._steps(state.observation, state.action, state.reward, state.known)
        step = torch.where(state.known.unsqueeze(1), step, 0.0)
        token = self._tokens(step, observation, state.start).unsqueeze(1)
        hidden, backbone = self.backbone.stream(token, state.backbone)
        return self._score(hidden).squeeze(1), state._replace(backbone=backbone, observation=observation)

    def observe(
        self,
        state: DecisionState,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> DecisionState:
        """Keep what the step brought until the next token is written."""
        return state._replace(
            action=action, reward=reward.to(state.reward.dtype), known=torch.ones_like(state.known), start=done
        )

    def _steps(self, observation: Tensor, action: Tensor, reward: Tensor, known: Tensor) -> Tensor:
        taken = one_hot(action, self.config.num_actions).to(reward.dtype)
        flag = known.to(reward.dtype).unsqueeze(-1)
        return torch.cat((observation, taken, reward.unsqueeze(-1), flag), dim=-1)

    def _tokens(self, before: Tensor, observation: Tensor, start: Tensor) -> Tensor:
        flag = start.to(before.dtype).unsqueeze(-1)
        tokens: Tensor = self.embed(torch.cat((before, observation, flag), dim=-1))
        return tokens

    def _score(self, hidden: Tensor) -> Tensor:
        scores = self.head(hidden)
        return scores.to(wide(scores.dtype))
