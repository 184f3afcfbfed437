"""Memory length: one bit, seen at the start, asked at the end (Osband et al., 2020, bsuite, arXiv:1908.03568).

For `length` steps nothing that is done matters; then the action must be the bit that the first observation showed.
Right pays one, wrong takes one away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.environments.certain import Certain
from contexture.errors import InputError
from contexture.protocols import EnvironmentCard, Outcome


class Remembered(NamedTuple):
    """bit: int64 [batch], 0 or 1; steps: int64 [batch]."""

    bit: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class MemoryLength(Certain):
    """A bit is shown once and asked for `length` steps later; each new episode asks for the other one."""

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="memory-length",
        summary="A bit is shown in the first step and asked for in the last.",
        paper="Osband et al., Behaviour Suite for Reinforcement Learning, arXiv:1908.03568",
        year=2020,
        family="features",
    )

    length: int = 10
    num_actions: ClassVar[int] = 2
    num_features: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InputError(f"length is at least one step, not {self.length}")

    @property
    def horizon(self) -> int:
        """The steps that do not matter, and the one that does."""
        return self.length + 1

    def begin(self, batch: int, *, generator: torch.Generator) -> Remembered:
        """Draw a bit for each world."""
        return Remembered(torch.randint(2, (batch,), generator=generator), torch.zeros(batch, dtype=torch.int64))

    def restart(self, world: Remembered, chosen: Shaped[Tensor, " batch"]) -> Remembered:
        """From the first step, with the other bit."""
        return Remembered(torch.where(chosen, 1 - world.bit, world.bit), world.steps.masked_fill(chosen, 0))

    def observation(self, world: Remembered) -> Float[Tensor, "batch 3"]:
        """The bit (1 or -1) before the first step and 0 later; whether it is asked for; the share of time gone."""
        shown = (2.0 * world.bit - 1).masked_fill(world.steps > 0, 0.0)
        asked = (world.steps == self.length).to(shown.dtype)
        return torch.stack((shown, asked, world.steps / self.length), 1)

    def step(
        self, world: Remembered, action: Int[Tensor, " batch"], *, generator: torch.Generator
    ) -> tuple[Outcome, Remembered]:
        """Wait, or answer; nothing is drawn."""
        asked = world.steps == self.length
        answer = torch.where(action == world.bit, 1.0, -1.0)
        return Outcome(answer.masked_fill(~asked, 0.0), asked), world._replace(steps=world.steps + 1)

    def best_return(self, world: Remembered) -> Float[Tensor, " batch"]:
        """One, until it was asked."""
        return (world.steps <= self.length).to(torch.get_default_dtype())

    def latents(self, world: Remembered) -> Mapping[str, Tensor]:
        """bit, int64 [batch]."""
        return {"bit": world.bit}
