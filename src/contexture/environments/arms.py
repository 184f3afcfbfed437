"""What bandits share: worlds that are nothing but the arms' means."""

from typing import NamedTuple

import torch
from torch import Tensor

from contexture.errors import InputError


class Arms(NamedTuple):
    """The expected reward of each arm, [batch, arms]."""

    means: Tensor


def require_arms(num_arms: int) -> None:
    """InputError for fewer than two arms."""
    if num_arms < 2:
        raise InputError(f"a bandit needs at least two arms to choose from, not {num_arms}")


def no_observation(means: Tensor) -> Tensor:
    """[batch, 0]: a bandit shows nothing before a pull."""
    return means.new_zeros(len(means), 0)


def means_of(world: Arms, action: Tensor) -> Tensor:
    """The expected reward of each world's chosen arm."""
    return world.means.gather(1, action.unsqueeze(1)).squeeze(1)


def gap(world: Arms, action: Tensor) -> Tensor:
    """The best mean less the chosen one's."""
    return world.means.amax(1) - means_of(world, action)


def bernoulli(mean: Tensor, generator: torch.Generator) -> Tensor:
    """Ones with probability `mean`, else zeros."""
    return (torch.rand(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype) < mean).to(mean.dtype)
