"""Linear, sparse and second-order scores of a synthetic table.

    linear      s = x w                        w normal, some columns much heavier than others
    quadratic   s = x w + sum_p a_p x_i x_j    over random pairs (i, j), squares included

Legend: B = tables drawn together, N = rows, R = relevant columns, K = scores.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.tasks.tabular_prior.draws import integer, log_uniform, normal, standardise, subset, take_columns

Columns = Float[Tensor, "tables rows relevant"]
Scores = Float[Tensor, "tables rows scores"]


def linear_scores(x: Columns, num_scores: int, *, generator: torch.Generator) -> Scores:
    """Linear combinations whose weights differ in size by up to a factor of thirty."""
    num_tables, _, num_columns = x.shape
    weights = normal(num_tables, num_columns, num_scores, generator=generator)
    weights = weights * log_uniform(num_tables, num_columns, 1, low=0.1, high=3.0, generator=generator)
    return standardise(x @ weights)


def quadratic_scores(x: Columns, num_scores: int, *, generator: torch.Generator) -> Scores:
    """A linear combination and products of random pairs of columns."""
    num_tables, _, num_columns = x.shape
    num_pairs = integer(1, max(1, min(6, num_columns)), generator=generator)
    left = take_columns(x, subset(num_tables, num_columns, num_pairs, generator=generator))
    right = take_columns(x, subset(num_tables, num_columns, num_pairs, generator=generator))
    products = (left * right).clamp(-8, 8)
    weights = normal(num_tables, num_pairs, num_scores, generator=generator)
    share = log_uniform(num_tables, 1, 1, low=0.1, high=1.5, generator=generator)
    plain = normal(num_tables, num_columns, num_scores, generator=generator)
    return standardise(standardise(products @ weights) + share * standardise(x @ plain))
