"""The bandit whose arms pay one or nothing (Thompson, Biometrika 25, 1933).

mu_a ~ U(0, 1);    reward of arm a ~ Bernoulli(mu_a)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.environments.arms import Arms, bernoulli, gap, means_of, no_observation, require_arms
from contexture.protocols import EnvironmentCard, Outcome


@dataclass(frozen=True, kw_only=True)
class BernoulliBandit:
    """Arms that pay one with a probability drawn uniformly, and nothing otherwise."""

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="bernoulli-bandit",
        summary="Arms that pay one with a probability of their own, and nothing otherwise.",
        paper="Thompson, On the Likelihood that One Unknown Probability Exceeds Another, Biometrika 25",
        year=1933,
        family="arms",
    )

    num_arms: int = 5
    num_features: ClassVar[int] = 0
    horizon: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_arms(self.num_arms)

    @property
    def num_actions(self) -> int:
        """One action for each arm."""
        return self.num_arms

    def begin(self, batch: int, *, generator: torch.Generator) -> Arms:
        """Draw the probabilities."""
        return Arms(torch.rand(batch, self.num_arms, generator=generator, device=generator.device))

    def restart(self, world: Arms, chosen: Shaped[Tensor, " batch"]) -> Arms:
        """The same arms: a pull leaves nothing behind."""
        return world

    def observation(self, world: Arms) -> Float[Tensor, "batch 0"]:
        """Nothing."""
        return no_observation(world.means)

    def step(self, world: Arms, action: Int[Tensor, " batch"], *, generator: torch.Generator) -> tuple[Outcome, Arms]:
        """Pull an arm."""
        reward = bernoulli(means_of(world, action), generator)
        return Outcome(reward, torch.ones_like(action, dtype=torch.bool)), world

    def regret(self, world: Arms, action: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The best probability less the arm's."""
        return gap(world, action)

    def latents(self, world: Arms) -> Mapping[str, Tensor]:
        """means [batch, arms]."""
        return {"means": world.means}
