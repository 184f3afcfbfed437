"""The bandit with Gaussian rewards (Lattimore & Szepesvari, Bandit Algorithms, 2020; settings of Lee et al., 2023).

mu_a ~ U(low, high);    reward of arm a ~ N(mu_a, noise^2);    regret of arm a = max_b mu_b - mu_a
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.environments.arms import Arms, gap, means_of, no_observation, require_arms
from contexture.errors import InputError
from contexture.protocols import EnvironmentCard, Outcome


@dataclass(frozen=True, kw_only=True)
class GaussianBandit:
    """Arms whose rewards scatter around means drawn uniformly from [low, high].

    >>> from contexture.randomness import generator
    >>> bandit = GaussianBandit(num_arms=3)
    >>> world = bandit.begin(2, generator=generator(0))
    >>> bandit.regret(world, world.means.argmax(1)).tolist()
    [0.0, 0.0]
    """

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="gaussian-bandit",
        summary="Arms whose rewards scatter normally around means drawn uniformly from an interval.",
        paper="Lee et al., Supervised Pretraining Can Learn In-Context Reinforcement Learning, arXiv:2306.14892",
        year=2023,
        family="arms",
    )

    num_arms: int = 5
    noise: float = 0.3
    low: float = 0.0
    high: float = 1.0
    num_features: ClassVar[int] = 0
    horizon: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_arms(self.num_arms)
        if not (self.noise >= 0 and self.low < self.high):
            raise InputError(
                f"a Gaussian bandit needs noise >= 0 and low < high, not {self.noise}, {self.low} and {self.high}"
            )

    @property
    def num_actions(self) -> int:
        """One action for each arm."""
        return self.num_arms

    def begin(self, batch: int, *, generator: torch.Generator) -> Arms:
        """Draw the means."""
        drawn = torch.rand(batch, self.num_arms, generator=generator, device=generator.device)
        return Arms(self.low + (self.high - self.low) * drawn)

    def restart(self, world: Arms, chosen: Shaped[Tensor, " batch"]) -> Arms:
        """The same arms: a pull leaves nothing behind."""
        return world

    def observation(self, world: Arms) -> Float[Tensor, "batch 0"]:
        """Nothing."""
        return no_observation(world.means)

    def step(self, world: Arms, action: Int[Tensor, " batch"], *, generator: torch.Generator) -> tuple[Outcome, Arms]:
        """Pull an arm."""
        mean = means_of(world, action)
        scatter = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return Outcome(mean + self.noise * scatter, torch.ones_like(action, dtype=torch.bool)), world

    def regret(self, world: Arms, action: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The best mean less the arm's."""
        return gap(world, action)

    def latents(self, world: Arms) -> Mapping[str, Tensor]:
        """means [batch, arms]."""
        return {"means": world.means}
