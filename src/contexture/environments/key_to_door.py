"""Key to door: two unseen cells in a fixed order (Laskin et al., 2022, arXiv:2210.14215).

The first step onto the key pays one; after it, the first step onto the door pays one more and ends the episode. Key and
door stay for all episodes of a world; whether the key is held is not seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from contexture.environments import grid
from contexture.environments.certain import Certain
from contexture.errors import InputError
from contexture.protocols import EnvironmentCard, Outcome


class KeyRoom(NamedTuple):
    """key, door, cell: int64 [batch, 2]; held: bool [batch]; steps: int64 [batch]."""

    key: Tensor
    door: Tensor
    cell: Tensor
    held: Tensor
    steps: Tensor


@dataclass(frozen=True, kw_only=True)
class KeyToDoor(Certain):
    """A grid with a key that pays once, and a door that pays once the key is held."""

    card: ClassVar[EnvironmentCard] = EnvironmentCard(
        name="key-to-door",
        summary="A grid with two unseen cells that pay only one after the other.",
        paper="Laskin et al., In-context Reinforcement Learning with Algorithm Distillation, arXiv:2210.14215",
        year=2022,
        family="states",
    )

    size: int = 9
    horizon: int = 50
    num_actions: ClassVar[int] = len(grid.MOVES)
    num_features: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.size < 2 or self.horizon < 1:
            raise InputError(f"a key-to-door room needs size >= 2 and horizon >= 1, not {self.size} and {self.horizon}")

    @property
    def num_states(self) -> int:
        """How many cells are told apart."""
        return self.size**2

    def begin(self, batch: int, *, generator: torch.Generator) -> KeyRoom:
        """Draw a key and a door for each world, independently."""
        drawn = torch.randint(self.size, (2, batch, 2), generator=generator)
        start = torch.full((batch, 2), self.size // 2, dtype=torch.int64)
        nothing = torch.zeros(batch, dtype=torch.int64)
        return KeyRoom(drawn[0], drawn[1], start, nothing.to(torch.bool), nothing)

    def restart(self, world: KeyRoom, chosen: Shaped[Tensor, " batch"]) -> KeyRoom:
        """Back to the centre, without the key."""
        start = torch.full_like(world.cell, self.size // 2)
        return world._replace(
            cell=torch.where(chosen.unsqueeze(1), start, world.cell),
            held=world.held & ~chosen,
            steps=world.steps.masked_fill(chosen, 0),
        )

    def observation(self, world: KeyRoom) -> Float[Tensor, "batch 2"]:
        """The position, each coordinate from -1 to 1."""
        return grid.scaled(world.cell, self.size)

    def states(self, observation: Float[Tensor, "*batch 2"]) -> Int[Tensor, "*batch"]:
        """The index of the cell that an observation shows."""
        return grid.index(observation, self.size)

    def step(
        self, world: KeyRoom, action: Int[Tensor, " batch"], *, generator: torch.Generator
    ) -> tuple[Outcome, KeyRoom]:
        """Move; nothing is drawn."""
        cell, steps = grid.move(world.cell, action, self.size), world.steps + 1
        on_key, on_door = ((cell == place).all(1) for place in (world.key, world.door))
        found, opened = on_key & ~world.held, on_door & world.held
        reward = (found | opened).to(torch.get_default_dtype())
        after = world._replace(cell=cell, held=world.held | found, steps=steps)
        return Outcome(reward, opened | (steps >= self.horizon)), after

    def best_return(self, world: KeyRoom) -> Float[Tensor, " batch"]:
        """What can still be earned in this episode by who knows both cells."""
        left = self.horizon - world.steps
        key = grid.distance(world.cell, world.key).clamp(min=1)
        door = grid.distance(torch.where(world.held.unsqueeze(1), world.cell, world.key), world.door).clamp(min=1)
        needed = torch.where(world.held, door, key + door)
        found = ~world.held & (left >= key)
        return (found.to(torch.int64) + (left >= needed)).to(torch.get_default_dtype())

    def latents(self, world: KeyRoom) -> Mapping[str, Tensor]:
        """key and door, int64 [batch, 2]."""
        return {"key": world.key, "door": world.door}
