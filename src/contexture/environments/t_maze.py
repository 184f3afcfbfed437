"""The T-maze: a cue is seen once and needed at the end (Bakker, 2001; the memory task of Parisotto et al., 2019).

A corridor of `length` cells; the first observation shows a cue, up or down. At the junction the agent turns; turning
the cue's way pays one, and either turn ends the episode. Walking takes length moves, so with h steps left at distance d
the turn can still be reached if h > d. Chance, for who walks and then guesses, is one half.
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

BACK, FORWARD, UP, DOWN = range(4)


class Maze(NamedTuple):
    """up: whether the cue says up, bool [batch]; cell and steps: int64 [batch]."""

    up: Tensor
    cell: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class TMaze(Certain):
    """A corridor whose first cell shows which way to turn at its end.

    Actions: back, forward, up, down; turning does nothing before the junction, and the walls stop a move beyond either
    end. The cue is drawn when the world begins, and every new episode shows the other one.
    """

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="t-maze",
        summary="A corridor whose first cell shows which way to turn at its end.",
        paper="Bakker, Reinforcement Learning with Long Short-Term Memory, NeurIPS",
        year=2001,
        family="features",
    )

    length: int = 10
    horizon: int = 20
    num_actions: ClassVar[int] = 4
    num_features: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.length < 1 or self.horizon <= self.length:
            raise InputError(
                f"a T-maze needs length >= 1 and a horizon beyond it, not {self.length} and {self.horizon}"
            )

    def begin(self, batch: int, *, generator: torch.Generator) -> Maze:
        """Draw a cue for each world."""
        zeros = torch.zeros(batch, dtype=torch.int64)
        return Maze(torch.randint(2, (batch,), generator=generator) == 1, zeros, zeros)

    def restart(self, world: Maze, chosen: Shaped[Tensor, " batch"]) -> Maze:
        """Back to the first cell, with the other cue."""
        return Maze(world.up ^ chosen, world.cell.masked_fill(chosen, 0), world.steps.masked_fill(chosen, 0))

    def observation(self, world: Maze) -> Float[Tensor, "batch 3"]:
        """The cue (1 up, -1 down) before the first step and 0 later; whether this is the junction; always one."""
        cue = torch.where(world.up, 1.0, -1.0).masked_fill(world.steps > 0, 0.0)
        junction = (world.cell == self.length).to(cue.dtype)
        return torch.stack((cue, junction, torch.ones_like(cue)), 1)

    def step(self, world: Maze, action: Int[Tensor, " batch"], *, generator: torch.Generator) -> tuple[Outcome, Maze]:
        """Walk or turn; nothing is drawn."""
        turned = (world.cell == self.length) & (action >= UP)
        right = turned & ((action == UP) == world.up)
        walked = (action == FORWARD).to(torch.int64) - (action == BACK).to(torch.int64)
        cell, steps = (world.cell + walked).clamp(0, self.length), world.steps + 1
        reward = right.to(torch.get_default_dtype())
        return Outcome(reward, turned | (steps >= self.horizon)), world._replace(cell=cell, steps=steps)

    def best_return(self, world: Maze) -> Float[Tensor, " batch"]:
        """One if the turn can still be reached."""
        return (self.horizon - world.steps > self.length - world.cell).to(torch.get_default_dtype())

    def latents(self, world: Maze) -> Mapping[str, Tensor]:
        """up, bool [batch]."""
        return {"up": world.up}
