"""A sequence model that decides and foresees what its decisions would bring (Son et al., 2025, arXiv:2502.19009).

    scores of step t          read at token t, as in `contexture.models.decisions`
    outcomes of step t        read there too, for every action that could be taken:
                              o_{t+1} - o_t,   r_t,   (r_t + .. + r of the episode's last step) / horizon

One model does both, so that what it has seen of a world tells it what to do and what would come of it. Fed with its own
predictions, it tries out in its forward pass what it has not done.

outcomes: [batch, time, actions, features + 2].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.models.backbone import BackboneConfig
from contexture.models.decisions import DecisionModel, DecisionModelConfig, DecisionState
from contexture.protocols import Trajectories


@dataclass(frozen=True, kw_only=True)
class PlanningModelConfig:
    """The shape of a model that plans: that of one that decides, and what its foresight is measured by.

    horizon: the number of steps by which returns are divided. balance: what the squared errors of foresight count
    against the log-loss of the decision in training.
    """

    num_actions: int
    num_features: int = 0
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    horizon: int = 20
    balance: float = 4.0

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))
        if self.horizon < 1 or self.balance < 0:
            raise InputError(
                f"a model that plans needs a horizon of at least one step and a balance of at least zero, not "
                f"{self.horizon} and {self.balance}"
            )

    @property
    def decisions(self) -> DecisionModelConfig:
        """The shape of the part that decides."""
        return DecisionModelConfig(num_actions=self.num_actions, num_features=self.num_features, backbone=self.backbone)


class Foresight(NamedTuple):
    """Scores of the actions, and what each would bring: change of the observation, reward, return / horizon."""

    scores: Float[Tensor, "*lead actions"]
    outcomes: Float[Tensor, "*lead actions outcomes"]


class PlanningModel(nn.Module):
    """A model that decides, with a table of outcomes beside its table of scores.

    >>> backbone = BackboneConfig(pattern="softmax", width=8, num_heads=2)
    >>> config = PlanningModelConfig(num_actions=3, num_features=2, backbone=backbone)
    >>> model = PlanningModel(config, generator=torch.Generator().manual_seed(0))
    >>> steps = (torch.zeros(2, 4, 2), torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4))
    >>> model(*steps, torch.ones(2, 4, dtype=torch.bool)).outcomes.shape
    torch.Size([2, 4, 3, 4])
    """

    def __init__(self, config: PlanningModelConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.decisions = DecisionModel(config.decisions, generator=generator)
        num_outcomes = config.num_actions * (config.num_features + 2)
        # Until it has learned something, it foresees next to nothing.
        self.outcomes = Linear(config.backbone.width, num_outcomes, generator=generator, gain=0.01)

    def forward(
        self,
        observations: Float[Tensor, "batch time features"],
        actions: Int[Tensor, "batch time"],
        rewards: Float[Tensor, "batch time"],
        starts: Shaped[Tensor, "batch time"],
    ) -> Foresight:
        """What to do at every step, and what it would bring."""
        return self._foresee(self.decisions.read(observations, actions, rewards, starts))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> DecisionState:
        """The state before the first step."""
        return self.decisions.init_state(batch, device=device, dtype=dtype)

    def decide(
        self, observation: Float[Tensor, "batch features"], state: DecisionState
    ) -> tuple[Foresight, DecisionState]:
        """The next step's scores and outcomes; `observe` has to say what came of it before the one after."""
        hidden, state = self.decisions.read_next(observation, state)
        return self._foresee(hidden), state

    def observe(
        self,
        state: DecisionState,
        action: Int[Tensor, " batch"],
        reward: Float[Tensor, " batch"],
        done: Shaped[Tensor, " batch"],
    ) -> DecisionState:
        """Keep what the step brought until the next token is written."""
        return self.decisions.observe(state, action, reward, done)

    def _foresee(self, hidden: Tensor) -> Foresight:
        flat: Tensor = self.outcomes(hidden)
        return Foresight(self.decisions.score(hidden), flat.view(*hidden.shape[:-1], self.config.num_actions, -1))


def outcomes_of(steps: Trajectories, horizon: int) -> tuple[Tensor, Tensor]:
    """What every step brought, as the model says it, and which entries are known, both [batch, time, features + 2].

    Where an episode ends, what would have been seen next is not.
    """
    change = torch.zeros_like(steps.observations)
    change[:, :-1] = steps.observations.diff(dim=1)
    last = torch.ones_like(steps.starts)
    last[:, :-1] = steps.starts[:, 1:]
    returns = returns_to_go(steps.rewards, steps.starts) / horizon
    values = torch.cat((change, steps.rewards.unsqueeze(-1), returns.unsqueeze(-1)), -1)
    known = torch.ones_like(values, dtype=torch.bool)
    known[..., : change.shape[-1]] = ~last.unsqueeze(-1)
    return values, known


def returns_to_go(
    rewards: Float[Tensor, "batch time"], starts: Shaped[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """The rewards from every step to the end of its episode.

    >>> starts = torch.tensor([[True, False, False, True, False]])
    >>> returns_to_go(torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]]), starts).tolist()
    [[7.0, 6.0, 4.0, 24.0, 16.0]]
    """
    episode = starts.to(torch.int64).cumsum(1) - 1
    sums = torch.zeros_like(rewards).scatter_add(1, episode, rewards)
    return sums.cumsum(1).gather(1, episode) - (rewards.cumsum(1) - rewards)
