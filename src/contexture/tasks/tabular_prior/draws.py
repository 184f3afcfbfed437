"""Random numbers for the synthetic tables: every draw comes from the generator that is handed in.

Legend: B = tables drawn together, N = rows, D = columns.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPSILON = 1e-6
Option = TypeVar("Option")


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the given shape."""
    return torch.randn(shape, generator=generator)


def uniform(*shape: int, low: float = 0.0, high: float = 1.0, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [low, high)."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def log_uniform(*shape: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Numbers in [low, high) whose logarithm is uniform."""
    return uniform(*shape, low=math.log(low), high=math.log(high), generator=generator).exp()


def integer(low: int, high: int, *, generator: torch.Generator) -> int:
    """One integer in low..high, both ends included."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def log_integer(low: int, high: int, *, generator: torch.Generator) -> int:
    """One integer in low..high whose logarithm is about uniform."""
    return min(high, int(log_uniform(1, low=low, high=high + 1, generator=generator)))


def chance(probability: float, *, generator: torch.Generator) -> bool:
    """True with the given probability."""
    return float(torch.rand(1, generator=generator)) < probability


def choose(options: Sequence[Option], *, weights: Sequence[float], generator: torch.Generator) -> Option:
    """One of the options, drawn by weight."""
    return options[int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=generator))]


def subset(num_tables: int, size: int, count: int, *, generator: torch.Generator) -> Int[Tensor, "tables count"]:
    """For each table, `count` different indices below `size`, in random order."""
    return torch.rand(num_tables, size, generator=generator).argsort(dim=1)[:, :count]


def take_columns(
    x: Float[Tensor, "tables rows columns"], columns: Int[Tensor, "tables chosen"]
) -> Float[Tensor, "tables rows chosen"]:
    """For each table, the chosen columns."""
    return x.gather(2, columns[:, None, :].expand(-1, x.shape[1], -1))


def standardise(x: Float[Tensor, "tables rows *rest"]) -> Float[Tensor, "tables rows *rest"]:
    """Zero mean and unit deviation over the rows of each table; a constant stays zero."""
    centred = x - x.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + EPSILON)
