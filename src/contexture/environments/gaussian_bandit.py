"""The bandit with Gaussian rewards (Lattimore & Szepesvari, Bandit Algorithms, 2020; settings of Lee et al., 2023).

    mu_a ~ U(low, high);    reward of arm a ~ N(mu_a, noise^2);    regret of arm a = max_b mu_b - mu_a

The arms of a world are independent.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.environments.arms import Arms, Bandit, require_arms, scattered
from contexture.errors import InputError
from contexture.protocols import EnvironmentCard


@dataclass(frozen=True, kw_only=True)
class GaussianBandit(Bandit):
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

    def __post_init__(self) -> None:
        require_arms(self.num_arms)
        if not (self.noise >= 0 and self.low < self.high):
            raise InputError(
                f"a Gaussian bandit needs noise >= 0 and low < high, not {self.noise}, {self.low} and {self.high}"
            )

    def begin(self, batch: int, *, generator: torch.Generator) -> Arms:
        """Draw the means."""
        drawn = torch.rand(batch, self.num_arms, generator=generator, device=generator.device)
        return Arms(self.low + (self.high - self.low) * drawn)

    def pay(self, mean: Float[Tensor, " batch"], *, generator: torch.Generator) -> Float[Tensor, " batch"]:
        """Draw the rewards of arms with these means."""
        return scattered(mean, self.noise, generator=generator)
