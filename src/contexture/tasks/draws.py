"""What synthetic families share: draws in fp64 on the generator's device, noise, and checks of settings.

Legend: batch = episodes, time = examples, features = columns.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import Pairs, Schema


def at_least(least: float, **settings: float) -> None:
    """Raise InputError naming the first setting below `least` (or not a number)."""
    for name, value in settings.items():
        if not value >= least:
            raise InputError(f"{name} must be at least {least:g}, not {value:g}")


def above_zero(**settings: float) -> None:
    """Raise InputError naming the first setting that is not positive."""
    for name, value in settings.items():
        if not value > 0:
            raise InputError(f"{name} must be positive, not {value:g}")


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)


def uniform(*shape: int, low: float = 0.0, high: float = 1.0, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [low, high)."""
    return torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device) * (high - low) + low


def integers(*shape: int, below: int, generator: torch.Generator) -> Tensor:
    """Uniform int64 numbers in 0..below-1."""
    return torch.randint(below, shape, generator=generator, device=generator.device)


def subsets(batch: int, num_items: int, size: int, *, generator: torch.Generator) -> Tensor:
    """`size` different items of 0..num_items-1 for each episode, in random order: int64 [batch, size]."""
    return torch.rand(batch, num_items, generator=generator, device=generator.device).topk(size).indices


def different(batch: int, num_items: int, count: int, *, generator: torch.Generator) -> Int[Tensor, "batch count"]:
    """`count` different items of 0..num_items-1 for each sequence, in random order.

    Drawn with replacement, and sequences with a repetition drawn again: far cheaper than a permutation of the items,
    unless most draws would repeat.
    """
    if count * count > num_items:
        return torch.rand(batch, num_items, generator=generator, device=generator.device).topk(count).indices
    items = integers(batch, count, below=num_items, generator=generator)
    while True:
        in_order = items.sort(1).values
        repeats = (in_order[:, 1:] == in_order[:, :-1]).any(1).nonzero().squeeze(1)
        if not len(repeats):
            return items
        items[repeats] = integers(len(repeats), count, below=num_items, generator=generator)


def orthogonal(batch: int, size: int, *, generator: torch.Generator) -> Float[Tensor, "batch size size"]:
    """Rotations and reflections drawn uniformly (Mezzadri 2007: the signs of R's diagonal are divided out)."""
    q, r = torch.linalg.qr(normal(batch, size, size, generator=generator))
    signs: Tensor = r.diagonal(dim1=-2, dim2=-1).sign()
    rotation: Tensor = q * signs.unsqueeze(-2)
    return rotation


@lru_cache(maxsize=64)
def numeric_schema(num_features: int) -> Schema:
    """`Schema.numeric`, kept."""
    return Schema.numeric(num_features)


@lru_cache(maxsize=64)
def class_schema(num_features: int, num_classes: int) -> Schema:
    """`Schema.classes`, kept."""
    return Schema.classes(num_features, num_classes)


def noisy(
    x: Float[Tensor, "batch time features"],
    clean: Float[Tensor, "batch time"],
    *,
    noise: float,
    generator: torch.Generator,
    latents: Mapping[str, Tensor] | None = None,
) -> Pairs:
    """A regression's episodes: y = clean + noise * N(0, 1)."""
    y = clean + noise * normal(*clean.shape, generator=generator) if noise else clean.clone()
    return Pairs(x=x, y=y, clean=clean, schema=numeric_schema(x.shape[-1]), latents=latents or {})


def linear(
    x: Float[Tensor, "batch time features"],
    weights: Float[Tensor, "batch features"],
    *,
    noise: float,
    generator: torch.Generator,
    latents: Mapping[str, Tensor] | None = None,
) -> Pairs:
    """Episodes of y = w.x + noise * N(0, 1), with w among the latents."""
    clean = (x @ weights.unsqueeze(-1)).squeeze(-1)
    return noisy(x, clean, noise=noise, generator=generator, latents={"weights": weights, **(latents or {})})
