"""Environments whose outcomes are certain: what an action gives away follows from what can still be earned."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.protocols import Outcome
from contexture.randomness import generator as generator_of


class Certain:
    """An environment in which `step` draws nothing and `best_return` says what who knows the world can still earn."""

    def step(self, world: Any, action: Int[Tensor, " batch"], *, generator: torch.Generator) -> tuple[Outcome, Any]:
        """Act in every world."""
        raise NotImplementedError

    def best_return(self, world: Any) -> Float[Tensor, " batch"]:
        """What can still be earned in this episode."""
        raise NotImplementedError

    def regret(self, world: Any, action: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """What could be earned before the action, less what it pays and what can be earned after it."""
        outcome, after = self.step(world, action, generator=generator_of("unused"))
        later = self.best_return(after).masked_fill(outcome.done, 0.0)
        return self.best_return(world) - outcome.reward - later
