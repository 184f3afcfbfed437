"""The linear bandit (Abbasi-Yadkori et al., 2011; settings of Lee et al., 2023, arXiv:2306.14892).

    phi_a ~ N(0, I / dim), fixed for all worlds;    theta ~ N(0, I / dim);    reward of arm a ~ N(theta.phi_a, noise^2)

Pulling one arm tells of all whose features point the same way.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.environments.arms import Arms, Bandit, require_arms, scattered
from contexture.errors import InputError
from contexture.protocols import EnvironmentCard
from contexture.randomness import generator as generator_of


@dataclass(frozen=True, kw_only=True)
class LinearBandit(Bandit):
    """Arms whose expected rewards are linear in known features, with weights that each world draws.

    The features are those of `arms_seed`: they are the same in every world, and agents may know them.
    """

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="linear-bandit",
        summary="Arms whose expected rewards are linear in features that are the same in every world.",
        paper="Lee et al., Supervised Pretraining Can Learn In-Context Reinforcement Learning, arXiv:2306.14892",
        year=2023,
        family="linear-arms",
    )

    num_arms: int = 10
    dim: int = 2
    noise: float = 0.3
    arms_seed: int = 0

    def __post_init__(self) -> None:
        require_arms(self.num_arms)
        if self.dim < 1 or self.noise < 0:
            raise InputError(f"a linear bandit needs dim >= 1 and noise >= 0, not {self.dim} and {self.noise}")

    @property
    def arms(self) -> Float[Tensor, "arms dim"]:
        """The features of every arm."""
        source = generator_of(self.arms_seed, "linear-bandit")
        scale: float = self.dim**-0.5
        return torch.randn(self.num_arms, self.dim, generator=source) * scale

    def begin(self, batch: int, *, generator: torch.Generator) -> Arms:
        """Draw the weights; a world holds the means that they give."""
        weights = torch.randn(batch, self.dim, generator=generator, device=generator.device) / self.dim**0.5
        means: Tensor = weights @ self.arms.to(weights.device).mT
        return Arms(means)

    def pay(self, mean: Float[Tensor, " batch"], *, generator: torch.Generator) -> Float[Tensor, " batch"]:
        """Draw the rewards of arms with these means."""
        return scattered(mean, self.noise, generator=generator)
