"""Darkroom whose moves are permuted (settings of Lee et al., 2023, arXiv:2306.14892).

The way is from one corner to the opposite one; which action is which move differs from world to world, 5! = 120 ways.
"""

import math
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

NUM_MOVES = len(grid.MOVES)


class PermutedRoom(NamedTuple):
    """moves: the move of each action, int64 [batch, 5]; cell: int64 [batch, 2]; steps: int64 [batch]."""

    moves: Tensor
    cell: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class PermutedDarkroom(Certain):
    """The goal is always the corner opposite the start, and what each action does must be found out."""

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="permuted-darkroom",
        summary="A grid whose goal is the far corner, and whose actions do something else in every world.",
        paper="Lee et al., Supervised Pretraining Can Learn In-Context Reinforcement Learning, arXiv:2306.14892",
        year=2023,
        family="states",
    )

    size: int = 9
    horizon: int = 50
    permutations: Literal["all", "train", "test"] = "all"
    held_out: int = 12
    num_actions: ClassVar[int] = NUM_MOVES
    num_features: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.size < 2 or self.horizon < 1:
            raise InputError(f"a darkroom needs size >= 2 and horizon >= 1, not {self.size} and {self.horizon}")
        if self.permutations not in ("all", "train", "test"):
            raise InputError(f"permutations are all, train or test, not {self.permutations!r}")
        if not 0 < self.held_out < math.factorial(NUM_MOVES):
            raise InputError(f"held_out must leave permutations on both sides of 120, not {self.held_out}")

    @property
    def num_states(self) -> int:
        """How many cells there are."""
        return self.size**2

    @property
    def drawn_from(self) -> Int[Tensor, "permutations 5"]:
        """The permutations that worlds draw from."""
        every = torch.cartesian_prod(*[torch.arange(NUM_MOVES)] * NUM_MOVES)
        every = every[(every.sort(1).values == torch.arange(NUM_MOVES)).all(1)]
        every = every[torch.randperm(len(every), generator=generator_of("permuted-darkroom"))]
        return {"all": every, "test": every[: self.held_out], "train": every[self.held_out :]}[self.permutations]

    def begin(self, batch: int, *, generator: torch.Generator) -> PermutedRoom:
        """Draw a permutation for each world."""
        choices = self.drawn_from
        moves = choices[torch.randint(len(choices), (batch,), generator=generator)]
        return PermutedRoom(moves, torch.zeros(batch, 2, dtype=torch.int64), torch.zeros(batch, dtype=torch.int64))

    def restart(self, world: PermutedRoom, chosen: Shaped[Tensor, " batch"]) -> PermutedRoom:
        """Back to the first corner."""
        return world._replace(
            cell=world.cell.masked_fill(chosen.unsqueeze(1), 0), steps=world.steps.masked_fill(chosen, 0)
        )

    def observation(self, world: PermutedRoom) -> Float[Tensor, "batch 2"]:
        """The position, each coordinate from -1 to 1."""
        return grid.scaled(world.cell, self.size)

    def states(self, observation: Float[Tensor, "*batch 2"]) -> Int[Tensor, "*batch"]:
        """The index of the cell that an observation shows."""
        return grid.index(observation, self.size)

    def step(
        self, world: PermutedRoom, action: Int[Tensor, " batch"], *, generator: torch.Generator
    ) -> tuple[Outcome, PermutedRoom]:
        """Do what the action means in this world; nothing is drawn."""
        meant = world.moves.gather(1, action.unsqueeze(1)).squeeze(1)
        cell, steps = grid.move(world.cell, meant, self.size), world.steps + 1
        reward = (cell == self.size - 1).all(1).to(torch.get_default_dtype())
        return Outcome(reward, steps >= self.horizon), world._replace(cell=cell, steps=steps)

    def best_return(self, world: PermutedRoom) -> Float[Tensor, " batch"]:
        """What can still be earned in this episode by who knows the permutation."""
        left = self.horizon - world.steps
        away = grid.distance(world.cell, torch.full_like(world.cell, self.size - 1)).clamp(min=1)
        return (left - away + 1).clamp(min=0).to(torch.get_default_dtype())

    def latents(self, world: PermutedRoom) -> Mapping[str, Tensor]:
        """moves, int64 [batch, 5]."""
        return {"moves": world.moves}
