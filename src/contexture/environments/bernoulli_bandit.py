"""The bandit whose arms pay one or nothing (Thompson, Biometrika 25, 1933).

    mu_a ~ U(0, 1);    reward of arm a ~ Bernoulli(mu_a)

Arms of a world are independent.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.environments.arms import Arms, Bandit, require_arms
from contexture.protocols import EnvironmentCard


@dataclass(frozen=True, kw_only=True)
class BernoulliBandit(Bandit):
    """Arms that pay one with a probability drawn uniformly, and nothing otherwise."""

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="bernoulli-bandit",
        summary="Arms that pay one with a probability of their own, and nothing otherwise.",
        paper="Thompson, On the Likelihood that One Unknown Probability Exceeds Another, Biometrika 25",
        year=1933,
        family="arms",
    )

    num_arms: int = 5

    def __post_init__(self) -> None:
        require_arms(self.num_arms)

    def begin(self, batch: int, *, generator: torch.Generator) -> Arms:
        """Draw the probabilities."""
        return Arms(torch.rand(batch, self.num_arms, generator=generator, device=generator.device))

    def pay(self, mean: Float[Tensor, " batch"], *, generator: torch.Generator) -> Float[Tensor, " batch"]:
        """Draw the rewards of arms with these means."""
        drawn = torch.rand(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return (drawn < mean).to(mean.dtype)
