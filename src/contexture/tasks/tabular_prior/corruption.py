"""What spoils the columns of a synthetic table: warps, categories, shuffled codes, missing cells, outliers, copies.

The scores of a table are taken before its columns are spoiled, except that a column that becomes a category takes its
latent values from the category first, so that the category and not a hidden number is what counts.

Legend: B = tables drawn together, N = rows, D = columns.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.tasks.tabular_prior.draws import chance, log_uniform, normal, standardise, uniform

Columns = Float[Tensor, "tables rows columns"]


def quantise(
    x: Columns, num_levels: Int[Tensor, "tables columns"], *, generator: torch.Generator
) -> Int[Tensor, "tables rows columns"]:
    """The level 0..num_levels-1 of each cell: levels are intervals between random normal cuts, so of unequal mass."""
    most = int(num_levels.max())
    cuts = normal(x.shape[0], x.shape[2], most, generator=generator)
    unused = torch.arange(most) >= num_levels[..., None] - 1
    cuts = cuts.masked_fill(unused, torch.inf).sort(dim=2).values
    return torch.searchsorted(cuts, x.transpose(1, 2).contiguous()).transpose(1, 2)


def categorise(
    x: Columns, *, share: float, generator: torch.Generator
) -> tuple[Columns, Int[Tensor, "tables rows columns"], Bool[Tensor, "tables columns"]]:
    """Turn about a share of the columns into categories.

    Returns the latent columns (a category's value is a random number), the codes in random order, and which columns.
    """
    num_tables, _, num_columns = x.shape
    chosen = torch.rand(num_tables, num_columns, generator=generator) < share
    num_levels = log_uniform(num_tables, num_columns, low=2, high=16, generator=generator).long()
    level = quantise(x, num_levels, generator=generator)
    most = int(num_levels.max())
    values = normal(num_tables, most, num_columns, generator=generator)
    latent = standardise(values.gather(1, level))
    order = torch.rand(num_tables, most, num_columns, generator=generator)
    order = order + 2.0 * (torch.arange(most)[:, None] >= num_levels[:, None, :])
    codes = order.argsort(dim=1).argsort(dim=1).gather(1, level)
    return torch.where(chosen[:, None], latent, x), codes, chosen


def warp(x: Columns, *, generator: torch.Generator) -> Columns:
    """A monotone change of scale for about half of the columns: exponential, cube, root, squashing; or rounding."""
    kind = torch.randint(0, 11, (x.shape[0], 1, x.shape[2]), generator=generator)
    rate = log_uniform(x.shape[0], 1, x.shape[2], low=0.3, high=2.0, generator=generator)
    warped = torch.where(kind == 0, (rate * x).clamp(max=8).exp(), x)
    warped = torch.where(kind == 1, x.pow(3), warped)
    warped = torch.where(kind == 2, x.sign() * x.abs().sqrt(), warped)
    warped = torch.where(kind == 3, torch.tanh(2 * rate * x), warped)
    warped = torch.where(kind == 4, (3 * rate * x).round(), warped)
    return torch.where(kind == 5, x.clamp(min=0), warped)


def add_outliers(x: Columns, *, generator: torch.Generator) -> Columns:
    """Blow up one cell in a hundred of a few columns."""
    columns = torch.rand(x.shape[0], 1, x.shape[2], generator=generator) < 0.2
    cells = torch.rand(x.shape, generator=generator) < 0.01
    size = log_uniform(x.shape[0], 1, x.shape[2], low=3, high=50, generator=generator)
    return torch.where(columns & cells, x * size, x)


def remove_cells(x: Columns, *, generator: torch.Generator) -> Columns:
    """NaN in up to 40 % of the cells of some columns, at random or where the cell was large."""
    rate = uniform(x.shape[0], 1, x.shape[2], low=-0.2, high=0.4, generator=generator)
    gone = torch.rand(x.shape, generator=generator) < rate
    if chance(0.3, generator=generator):
        gone = standardise(x) + normal(*x.shape, generator=generator) > 4 * (0.6 - rate)
    return x.masked_fill(gone, torch.nan)


def copy_columns(x: Columns, *, generator: torch.Generator) -> Columns:
    """Overwrite some columns by noisy copies of others."""
    source = torch.randint(0, x.shape[2], (x.shape[0], 1, x.shape[2]), generator=generator)
    noise = log_uniform(x.shape[0], 1, x.shape[2], low=0.01, high=1.0, generator=generator)
    copies = x.gather(2, source.expand_as(x)) + noise * normal(*x.shape, generator=generator)
    chosen = torch.rand(x.shape[0], 1, x.shape[2], generator=generator) < 0.3
    return torch.where(chosen, copies, x)
