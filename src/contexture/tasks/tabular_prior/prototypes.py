"""Scores by the nearest of a few prototypes, and tables whose rows are drawn given their class.

    prototypes          s = value of argmin_p |(x - x_p) / l|^2, or its softened form
    class-conditional   y ~ Categorical(p), x | y ~ a mixture of normals of its own

Legend: B = tables drawn together, N = rows, D = columns, P = prototypes, C = classes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.tasks.tabular_prior.draws import (
    chance,
    integer,
    log_integer,
    log_uniform,
    normal,
    standardise,
    uniform,
)


def prototype_scores(
    x: Float[Tensor, "tables rows relevant"], num_scores: int, *, generator: torch.Generator
) -> Float[Tensor, "tables rows scores"]:
    """The value of the nearest prototype, prototypes being rows of the table; softened half of the time."""
    num_tables, num_rows, num_columns = x.shape
    count = log_integer(2, 24, generator=generator)
    rows = torch.randint(0, num_rows, (num_tables, count, 1), generator=generator)
    scaled = x * log_uniform(num_tables, 1, num_columns, low=0.3, high=2.0, generator=generator)
    prototypes = scaled.gather(1, rows.expand(-1, -1, num_columns))
    distance = torch.cdist(scaled, prototypes).square() / num_columns
    sharpness = 200.0 if chance(0.5, generator=generator) else 4.0
    weights = torch.softmax(-sharpness * distance, dim=2)
    return standardise(weights @ normal(num_tables, count, num_scores, generator=generator))


def class_conditional(
    label: Int[Tensor, "tables rows"], num_classes: int, num_columns: int, *, generator: torch.Generator
) -> Float[Tensor, "tables rows columns"]:
    """Columns drawn given the class of the row: one to three normals per class, only some columns informative."""
    num_tables, num_rows = label.shape
    num_parts = integer(1, 3, generator=generator)
    separation = log_uniform(num_tables, 1, 1, low=0.3, high=4.0, generator=generator)
    informative = uniform(num_tables, 1, num_columns, generator=generator) < uniform(
        num_tables, 1, 1, low=0.1, high=1.1, generator=generator
    )
    count = num_classes * num_parts
    centres = normal(num_tables, count, num_columns, generator=generator)
    centres = centres * separation * informative / max(1.0, num_columns**0.5 / 1.5)
    spread = log_uniform(num_tables, count, num_columns, low=0.4, high=1.6, generator=generator)
    spread = torch.where(informative, spread, 1.0)
    part = label * num_parts + torch.randint(0, num_parts, label.shape, generator=generator)
    index = part[..., None].expand(-1, -1, num_columns)
    own = normal(num_tables, num_rows, num_columns, generator=generator)
    if num_columns > 1 and chance(0.5, generator=generator):
        mixing = normal(num_tables, num_columns, num_columns, generator=generator) / num_columns**0.5
        own = own + own @ mixing
    return standardise(centres.gather(1, index) + spread.gather(1, index) * own)
