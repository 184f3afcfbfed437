"""Thompson sampling for rewards of nought and one, with a beta prior (Chapelle & Li, 2011).

mu_a ~ Beta(1, 1), so that after s ones in n pulls  mu_a ~ Beta(1 + s, 1 + n - s)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import CountingAgent, Counts, greedy
from contexture.environments.bernoulli_bandit import BernoulliBandit
from contexture.protocols import AgentCard


@dataclass(frozen=True)
class BetaThompson(CountingAgent):
    """Draws every arm's probability of paying from what its ones and noughts leave possible. Rewards in [0, 1]."""

    card: ClassVar[AgentCard] = AgentCard(
        name="beta-thompson",
        summary="Draws every arm's chance of paying from its posterior under a flat prior, and pulls the highest.",
        paper="Chapelle & Li, An Empirical Evaluation of Thompson Sampling, NeurIPS",
        year=2011,
        kind="classical",
        families=frozenset({"arms"}),
        waivers={"worlds": "a beta draw takes as many random numbers as it needs, from one source for all worlds"},
    )

    @classmethod
    def example(cls) -> "BetaThompson":
        """For the default bandit of noughts and ones."""
        return cls(BernoulliBandit())

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The arm of the highest draw; a beta draw is one gamma draw over the sum of two."""
        ones = state.sums.clamp(min=0)
        noughts = (state.pulls - ones).clamp(min=0)
        drawn = torch._standard_gamma(torch.stack((1 + ones, 1 + noughts)), generator=state.generator)
        return greedy(drawn[0] / drawn.sum(0)), state
