"""What grids share: cells, five moves, and the distance between cells.

A cell is a pair of coordinates, int64 [batch, 2], each in 0..size-1. Moves: stay, and one step along either axis either
way; a step over the edge stays. Distance is the number of moves, which is the sum of the coordinates' differences.
"""

import torch
from torch import Tensor

MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
"""stay, and a step up or down each coordinate."""


def move(cell: Tensor, action: Tensor, size: int) -> Tensor:
    """Where a move leads."""
    return (cell + torch.tensor(MOVES, device=cell.device)[action]).clamp(0, size - 1)


def distance(cell: Tensor, other: Tensor) -> Tensor:
    """The fewest moves from one cell to another, [batch]."""
    return (cell - other).abs().sum(1)


def cells(index: Tensor, size: int) -> Tensor:
    """The cells of indices 0..size^2-1, row by row."""
    return torch.stack((index // size, index % size), -1)


def scaled(cell: Tensor, size: int) -> Tensor:
    """Coordinates as an observation: from -1 to 1."""
    return cell.to(torch.get_default_dtype()) * (2 / (size - 1)) - 1


def index(observation: Tensor, size: int) -> Tensor:
    """The index of the cell that an observation shows."""
    cell = ((observation + 1) * ((size - 1) / 2)).round().to(torch.int64)
    return cell[..., 0] * size + cell[..., 1]
