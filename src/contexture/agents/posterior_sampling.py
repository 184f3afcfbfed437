"""Posterior sampling with the Gaussian bandit's own prior, exactly (Thompson, Biometrika 25, 1933).

    mu_a ~ U(low, high);    p(mu_a | rewards) ~ exp(-n_a (mu_a - mean_a)^2 / (2 noise^2))  on [low, high]
    P(a is best) = integral of p_a(m) prod_{b != a} P(mu_b < m) dm

The integral is a sum over `points` midpoints. Acting by these probabilities is what a decision-pretrained transformer
is trained towards, so this is its oracle, in what it says as in what it earns.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical

from contexture.agents.base import CountingAgent, Counts
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.errors import InputError
from contexture.protocols import AgentCard


@dataclass(frozen=True)
class PosteriorSampling(CountingAgent):
    """Pulls every arm with the probability that it is the best one, under the prior that the bandit draws from."""

    card: ClassVar[AgentCard] = AgentCard(
        name="posterior-sampling",
        summary="Pulls every arm with the exact probability that it is the best, given the bandit's own prior.",
        paper="Thompson, On the Likelihood that One Unknown Probability Exceeds Another, Biometrika 25",
        year=1933,
        kind="classical",
        families=frozenset({"arms"}),
    )

    environment: GaussianBandit
    points: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.environment, GaussianBandit) or self.environment.noise == 0:
            raise InputError(f"{self.card.name!r} knows the prior of noisy Gaussian bandits and of nothing else")
        if self.points < 2:
            raise InputError(f"an integral needs at least two points, not {self.points}")

    def probabilities(
        self, pulls: Float[Tensor, "*batch arms"], sums: Float[Tensor, "*batch arms"]
    ) -> Float[Tensor, "*batch arms"]:
        """How likely each arm is the best one, after so many pulls with these sums of rewards."""
        low, high = self.environment.low, self.environment.high
        middles = (torch.arange(self.points, dtype=pulls.dtype, device=pulls.device) + 0.5) / self.points
        grid = low + (high - low) * middles
        apart = (grid - (sums / pulls.clamp(min=1)).unsqueeze(-1)).square()
        density = (-pulls.unsqueeze(-1) * apart / (2 * self.environment.noise**2)).softmax(-1)
        below = (density.cumsum(-1) - density / 2).clamp(min=1e-300).log()
        best = (density * (below.sum(-2, keepdim=True) - below).exp()).sum(-1)
        return best / best.sum(-1, keepdim=True)

    def act(self, state: Counts, observation: Float[Tensor, "batch features"]) -> tuple[Categorical, Counts]:
        """The probabilities themselves."""
        return Categorical(probs=self.probabilities(state.pulls, state.sums), validate_args=False), state
