"""The linear bandit (Abbasi-Yadkori et al., 2011; settings of Lee et al., 2023, arXiv:2306.14892).

phi_a ~ N(0, I / dim), fixed for all worlds;    theta ~ N(0, I / dim);    reward of arm a ~ N(theta.phi_a, noise^2)
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
from contexture.randomness import generator as generator_of


@dataclass(frozen=True, kw_only=True)
class LinearBandit:
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
    num_features: ClassVar[int] = 0
    horizon: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_arms(self.num_arms)
        if self.dim < 1 or self.noise < 0:
            raise InputError(f"a linear bandit needs dim >= 1 and noise >= 0, not {self.dim} and {self.noise}")

    @property
    def num_actions(self) -> int:
        """One action for each arm."""
        return self.num_arms

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
