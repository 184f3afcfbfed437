"""What bandits share: worlds that are nothing but the arms' means, and everything but how they are drawn and pay."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import Outcome


class Arms(NamedTuple):
    """The expected reward of each arm, [batch, arms]."""

    means: Tensor


class Bandit:
    """A pull shows nothing before and leaves nothing behind; what is given away is the best mean less the arm's.

    A bandit draws its worlds in `begin` and pays, given the mean of what was pulled, in `pay`.
    """

    num_arms: int
    num_features: ClassVar[int] = 0
    horizon: ClassVar[int] = 1

    @property
    def num_actions(self) -> int:
        """One action for each arm."""
        return self.num_arms

    def pay(self, mean: Float[Tensor, " batch"], *, generator: torch.Generator) -> Float[Tensor, " batch"]:
        """Draw the rewards of arms with these means."""
        raise NotImplementedError

    def restart(self, world: Arms, chosen: Shaped[Tensor, " batch"]) -> Arms:
        """The same arms."""
        return world

    def observation(self, world: Arms) -> Float[Tensor, "batch 0"]:
        """Nothing."""
        return world.means.new_zeros(len(world.means), 0)

    def step(self, world: Arms, action: Int[Tensor, " batch"], *, generator: torch.Generator) -> tuple[Outcome, Arms]:
        """Pull an arm."""
        reward = self.pay(means_of(world, action), generator=generator)
        return Outcome(reward, torch.ones_like(action, dtype=torch.bool)), world

    def regret(self, world: Arms, action: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The best mean less the arm's."""
        return world.means.amax(1) - means_of(world, action)

    def latents(self, world: Arms) -> Mapping[str, Tensor]:
        """means [batch, arms]."""
        return {"means": world.means}


def require_arms(num_arms: int) -> None:
    """InputError for fewer than two arms."""
    if num_arms < 2:
        raise InputError(f"a bandit needs at least two arms to choose from, not {num_arms}")


def means_of(world: Arms, action: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """The expected reward of each world's chosen arm."""
    return world.means.gather(1, action.unsqueeze(1)).squeeze(1)


def scattered(mean: Float[Tensor, " batch"], noise: float, *, generator: torch.Generator) -> Float[Tensor, " batch"]:
    """Draws from N(mean, noise^2)."""
    return mean + noise * torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
