"""How a table's cells and target become numbers, by statistics of the context rows alone.

    cell     [soft-clipped z-score, rank among the context rows, waves of the rank, missing flag, category flag]
    target   a class code, or the same numbers of the z-scored target

    rank     r = (#{context <= x} + #{context < x}) / m - 1, in [-1, 1], over the m cells that are not missing
    waves    cos(pi f r), sin(pi f r) for f = 1, 2, 4, 8: sharp boundaries need a fine scale

Legend: B = tables, N = rows, M = context rows, D = columns.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

WAVES = (1.0, 2.0, 4.0, 8.0)
CELL_CHANNELS = 2 + 2 * len(WAVES) + 2
TARGET_CHANNELS = 2 + 2 * len(WAVES)
LINEAR_RANGE = 3.0


class ColumnStatistics(NamedTuple):
    """What is known of each column from its context rows.

    mean, deviation, num_known: [tables, columns]; ordered: [tables, columns, members],
    ascending, missing cells last as inf.
    """

    mean: Tensor
    deviation: Tensor
    num_known: Tensor
    ordered: Tensor


def measure_columns(context: Float[Tensor, "tables members columns"]) -> ColumnStatistics:
    """Statistics of the cells that are not missing; a constant column has deviation one."""
    missing = context.isnan()
    count = (~missing).sum(dim=1)
    divisor = count.clamp(min=1)
    mean = context.nan_to_num(nan=0.0).sum(dim=1) / divisor
    centred = (context - mean[:, None]).masked_fill(missing, 0.0)
    deviation = (centred.square().sum(dim=1) / divisor).sqrt()
    constant = deviation <= 1e-6 * mean.abs() + 1e-30
    ordered = context.masked_fill(missing, torch.inf).transpose(1, 2).contiguous().sort(dim=2).values
    return ColumnStatistics(mean, deviation.masked_fill(constant, 1.0), count, ordered)


def soft_clip(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The identity up to 3 deviations, logarithmic beyond.

    >>> soft_clip(torch.tensor([2.0, -3.0, 3.0 + math.e - 1])).tolist()
    [2.0, -3.0, 4.0]
    """
    size = z.abs()
    return torch.where(size <= LINEAR_RANGE, z, z.sign() * (LINEAR_RANGE + (size - LINEAR_RANGE).clamp(min=0).log1p()))


def z_scores(x: Float[Tensor, "tables rows columns"], statistics: ColumnStatistics) -> Tensor:
    """Deviations from the context's mean, in units of the context's deviation."""
    return (x - statistics.mean[:, None]) / statistics.deviation[:, None]


def ranks(x: Float[Tensor, "tables rows columns"], statistics: ColumnStatistics) -> Tensor:
    """The middle rank of each cell among the context's cells, from -1 to 1."""
    cells = x.transpose(1, 2).contiguous()
    below = torch.searchsorted(statistics.ordered, cells)
    not_above = torch.searchsorted(statistics.ordered, cells, right=True)
    total = (below + torch.minimum(not_above, statistics.num_known[..., None])).transpose(1, 2).to(x.dtype)
    return total / statistics.num_known[:, None].clamp(min=1) - 1


def _channels(x: Tensor, statistics: ColumnStatistics) -> list[Tensor]:
    rank = ranks(x, statistics)
    angles = [math.pi * frequency * rank for frequency in WAVES]
    waves = [function(angle) for angle in angles for function in (torch.cos, torch.sin)]
    return [soft_clip(z_scores(x, statistics)), rank, *waves]


def encode_cells(
    x: Float[Tensor, "tables rows columns"],
    categorical: Bool[Tensor, "tables columns"],
    statistics: ColumnStatistics,
) -> Float[Tensor, "tables rows columns channels"]:
    """The numbers of each cell; a missing cell is all zero but for its flag and the category flag."""
    missing = x.isnan()
    filled = torch.where(missing, statistics.mean[:, None], x)
    known = torch.stack(_channels(filled, statistics), dim=-1).masked_fill(missing[..., None], 0.0)
    flags = torch.stack([missing.to(x.dtype), categorical[:, None].expand_as(x).to(x.dtype)], dim=-1)
    return torch.cat([known, flags], dim=-1)


def encode_target(
    y: Float[Tensor, "tables members"], statistics: ColumnStatistics
) -> Float[Tensor, "tables members channels"]:
    """The numbers of a regression's target; the statistics are those of the target as a column of its own."""
    return torch.stack(_channels(y[..., None], statistics), dim=-1).squeeze(2)
