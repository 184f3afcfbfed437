"""Thompson sampling with a normal prior (Thompson, 1933; Agrawal & Goyal, 2013, arXiv:1209.3353).

    mu_a ~ N(prior_mean, prior_variance), rewards ~ N(mu_a, noise^2), so that after n pulls of mean m
    precision = 1 / prior_variance + n / noise^2,    mean = (prior_mean / prior_variance + n m / noise^2) / precision

Each step draws one mean for every arm from its posterior and pulls the arm of the highest draw. The defaults match the
first two moments of U(0, 1) and a noise of 0.3.
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
class Thompson(CountingAgent):
    """Pulls each arm as often as it is believed to be the best."""

    card: ClassVar[AgentCard] = AgentCard(
        name="thompson",
        summary="Draws every arm's mean from its posterior under a normal prior, and pulls the highest.",
        paper="Agrawal & Goyal, Further Optimal Regret Bounds for Thompson Sampling, arXiv:1209.3353",
        year=2013,
        kind="classical",
        families=frozenset({"arms", "linear-arms"}),
    )

    prior_mean: float = field(default=0.5, kw_only=True)
    prior_variance: float = field(default=1 / 12, kw_only=True)
    noise: float = field(default=0.3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.prior_variance > 0 and self.noise > 0):
            raise InputError(
                f"Thompson sampling needs prior_variance and noise above zero, not {self.prior_variance}, {self.noise}"
            )

    def posterior(self, state: Counts) -> tuple[Float[Tensor, "batch arms"], Float[Tensor, "batch arms"]]:
        """The mean and the variance of what is believed of every arm."""
        precision = 1 / self.prior_variance + state.pulls / self.noise**2
        return (self.prior_mean / self.prior_variance + state.sums / self.noise**2) / precision, 1 / precision

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The arm of the highest draw."""
        mean, variance = self.posterior(state)
        drawn = torch.randn(mean.shape, generator=state.generator, dtype=mean.dtype, device=mean.device)
        return greedy(mean + variance.sqrt() * drawn), state
