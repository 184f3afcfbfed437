"""Lower confidence bounds (Rashidinejad et al., 2021, arXiv:2103.12021): caution about what was seldom tried.

    pull the arm of the highest  mean_a - width sqrt(1 / n_a);    an arm that was never pulled is never chosen

This is for choosing once from given data; it does not explore. Before any data it takes any arm.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import CountingAgent, Counts, greedy
from contexture.errors import InputError
from contexture.protocols import AgentCard


@dataclass(frozen=True)
class LCB(CountingAgent):
    """Pulls the arm that is surely good, as far as `width` standard errors of unit scale say."""

    card: ClassVar[AgentCard] = AgentCard(
        name="lcb",
        summary="Pulls the arm with the highest lower confidence bound: for choosing from given data.",
        paper="Rashidinejad et al., Bridging Offline Reinforcement Learning and Imitation Learning, arXiv:2103.12021",
        year=2021,
        kind="classical",
        families=frozenset({"arms", "linear-arms"}),
        waivers={"competence": "it chooses once from given data and does not explore"},
    )

    width: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 0:
            raise InputError(f"width is zero or more, not {self.width}")

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The highest bound among the arms that were pulled; any arm if none was."""
        bounds = torch.where(state.pulls > 0, state.means - self.width * state.pulls.clamp(min=1).rsqrt(), -torch.inf)
        unknown = (state.pulls == 0).all(1, keepdim=True)
        chosen = greedy(bounds).probs
        return Categorical(probs=torch.where(unknown, torch.ones_like(chosen), chosen), validate_args=False), state
