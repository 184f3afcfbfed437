"""A sequence model that decides, and says what it expects to earn (Sutton et al., 1999; Mnih et al., 2016).

    hidden_t of contexture.models.decisions ─▶ scores of actions [.., actions],  value [..]

observations: [batch, time, features]; actions: int64 [batch, time]; rewards: [batch, time]; starts: bool [batch, time].
The value is for training alone: whoever acts reads the scores, as of any model that decides.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.leaves.linear import Linear
from contexture.models.decisions import DecisionModel, DecisionModelConfig


class ActorCritic(DecisionModel):
    """A model that decides with a second head, for the sum of rewards that is still to come."""

    def __init__(self, config: DecisionModelConfig, *, generator: torch.Generator) -> None:
        super().__init__(config, generator=generator)
        self.critic = Linear(config.backbone.width, 1, generator=generator, gain=0.1)

    def judge(
        self,
        observations: Float[Tensor, "batch time features"],
        actions: Int[Tensor, "batch time"],
        rewards: Float[Tensor, "batch time"],
        starts: Shaped[Tensor, "batch time"],
    ) -> tuple[Float[Tensor, "batch time actions"], Float[Tensor, "batch time"]]:
        """Scores and value of every step, from what came before it."""
        hidden = self.read(observations, actions, rewards, starts)
        return self.score(hidden), self.critic(hidden).squeeze(-1)
