"""Darkroom: a goal that is not seen (Laskin et al., 2022, arXiv:2210.14215; Zintgraf et al., 2020, arXiv:1910.08348).

A position on a square grid is seen, the goal is not. Every step that ends on the goal pays one. An episode has a fixed
number of steps and starts in the centre; the goal stays for all episodes of a world, so that what was found in one can
be used in the next. With h steps left and the goal d moves away, h - max(d, 1) + 1 can still be earned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.environments import grid
from contexture.environments.certain import Certain
from contexture.errors import InputError
from contexture.protocols import EnvironmentCard, Outcome
from contexture.randomness import generator as generator_of


class Room(NamedTuple):
    """goal, cell: int64 [batch, 2]; steps: those taken in this episode, int64 [batch]."""

    goal: Tensor
    cell: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class Darkroom(Certain):
    """A grid with one paying cell that must be found by trying; `goals` says from which cells it is drawn.

    `held_out` of the cells, the same for everybody, are the goals of "test"; "train" has the others.

    >>> from contexture.randomness import generator
    >>> room = Darkroom(size=5, horizon=8)
    >>> world = room.begin(1, generator=generator(0))._replace(goal=torch.tensor([[2, 3]]))
    >>> room.best_return(world).tolist()  # one move away from the centre
    [8.0]
    """

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="darkroom",
        summary="A grid on which one unseen cell pays at every step that ends there, the same in all episodes.",
        paper="Laskin et al., In-context Reinforcement Learning with Algorithm Distillation, arXiv:2210.14215",
        year=2022,
        family="states",
    )

    size: int = 9
    horizon: int = 20
    goals: Literal["all", "train", "test"] = "all"
    held_out: int = 8
    num_actions: ClassVar[int] = len(grid.MOVES)
    num_features: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.size < 2 or self.horizon < 1:
            raise InputError(f"a darkroom needs size >= 2 and horizon >= 1, not {self.size} and {self.horizon}")
        if self.goals not in ("all", "train", "test"):
            raise InputError(f"goals are all, train or test, not {self.goals!r}")
        if not 0 < self.held_out < self.size**2:
            raise InputError(f"held_out must leave goals on both sides of {self.size**2} cells, not {self.held_out}")

    @property
    def num_states(self) -> int:
        """How many cells there are."""
        return self.size**2

    @property
    def goal_cells(self) -> Int[Tensor, "goals 2"]:
        """The cells that the goal is drawn from."""
        order = torch.randperm(self.num_states, generator=generator_of("darkroom", self.size))
        chosen = {"all": order, "test": order[: self.held_out], "train": order[self.held_out :]}[self.goals]
        return grid.cells(chosen.sort().values, self.size)

    def begin(self, batch: int, *, generator: torch.Generator) -> Room:
        """Draw a goal for each world."""
        cells = self.goal_cells
        drawn = torch.randint(len(cells), (batch,), generator=generator)
        goal = cells[drawn]
        return Room(goal, torch.full_like(goal, self.size // 2), torch.zeros(batch, dtype=torch.int64))

    def restart(self, world: Room, chosen: Shaped[Tensor, " batch"]) -> Room:
        """Back to the centre."""
        start = torch.full_like(world.cell, self.size // 2)
        return world._replace(
            cell=torch.where(chosen.unsqueeze(1), start, world.cell), steps=world.steps.masked_fill(chosen, 0)
        )

    def observation(self, world: Room) -> Float[Tensor, "batch 2"]:
        """The position, each coordinate from -1 to 1."""
        return grid.scaled(world.cell, self.size)

    def states(self, observation: Float[Tensor, "*batch 2"]) -> Int[Tensor, "*batch"]:
        """The index of the cell that an observation shows."""
        return grid.index(observation, self.size)

    def step(self, world: Room, action: Int[Tensor, " batch"], *, generator: torch.Generator) -> tuple[Outcome, Room]:
        """Move; nothing is drawn."""
        cell, steps = grid.move(world.cell, action, self.size), world.steps + 1
        reward = (cell == world.goal).all(1).to(torch.get_default_dtype())
        return Outcome(reward, steps >= self.horizon), world._replace(cell=cell, steps=steps)

    def best_return(self, world: Room) -> Float[Tensor, " batch"]:
        """What can still be earned in this episode by who knows the goal."""
        left = self.horizon - world.steps
        away = grid.distance(world.cell, world.goal).clamp(min=1)
        return (left - away + 1).clamp(min=0).to(torch.get_default_dtype())

    def latents(self, world: Room) -> Mapping[str, Tensor]:
        """goal, int64 [batch, 2], and the cell, from which a best action follows."""
        return {"goal": world.goal}


@dataclass(frozen=True, kw_only=True)
class LargeDarkroom(Darkroom):
    """Darkroom on a grid of 15 by 15 cells, with a tenth of them held out (settings of Laskin et al., 2022)."""

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="large-darkroom",
        summary="Darkroom on a grid of 15 by 15 cells, where the goal is seldom met by chance.",
        paper="Laskin et al., In-context Reinforcement Learning with Algorithm Distillation, arXiv:2210.14215",
        year=2022,
        family="states",
    )

    size: int = 15
    horizon: int = 50
    held_out: int = 22
