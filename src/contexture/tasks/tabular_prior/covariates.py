"""The columns of a synthetic table before anything spoils them.

Four kinds: independent columns, columns that share low-rank factors, clusters of rows, and the units of a random causal
graph (a network whose weights are sparse and whose units are the variables; Hollmann et al. 2023, "TabPFN").

Legend: B = tables drawn together, N = rows, D = columns; everything is standardised over the rows.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.tasks.tabular_prior.draws import (
    choose,
    integer,
    log_uniform,
    normal,
    standardise,
    subset,
    take_columns,
    uniform,
)

Columns = Float[Tensor, "tables rows columns"]


def independent(num_tables: int, num_rows: int, num_columns: int, *, generator: torch.Generator) -> Columns:
    """Columns drawn on their own: normal, uniform, lognormal or heavy-tailed, one law per column."""
    base = normal(num_tables, num_rows, num_columns, generator=generator)
    law = torch.randint(0, 4, (num_tables, 1, num_columns), generator=generator)
    flat = torch.special.ndtr(base) * 3.46
    heavy = base / uniform(num_tables, num_rows, num_columns, low=0.15, high=1.0, generator=generator)
    x = torch.where(law == 1, flat, base)
    x = torch.where(law == 2, (0.8 * base).exp(), x)
    return standardise(torch.where(law == 3, heavy, x))


def correlated(num_tables: int, num_rows: int, num_columns: int, *, generator: torch.Generator) -> Columns:
    """Normal columns that load on a few common factors, from nearly independent to nearly collinear."""
    num_factors = integer(1, max(1, num_columns // 2), generator=generator)
    factors = normal(num_tables, num_rows, num_factors, generator=generator)
    loadings = normal(num_tables, num_factors, num_columns, generator=generator)
    share = log_uniform(num_tables, 1, num_columns, low=0.1, high=5.0, generator=generator)
    own = normal(num_tables, num_rows, num_columns, generator=generator)
    return standardise(factors @ loadings * share / num_factors**0.5 + own)


def clusters(num_tables: int, num_rows: int, num_columns: int, *, generator: torch.Generator) -> Columns:
    """Rows scattered around a few centres."""
    num_centres = integer(2, 8, generator=generator)
    centres = normal(num_tables, num_centres, num_columns, generator=generator)
    member = torch.randint(0, num_centres, (num_tables, num_rows, 1), generator=generator)
    spread = log_uniform(num_tables, 1, num_columns, low=0.1, high=1.5, generator=generator)
    own = normal(num_tables, num_rows, num_columns, generator=generator)
    return standardise(centres.gather(1, member.expand(-1, -1, num_columns)) + spread * own)


def _activate(pre: Tensor) -> Tensor:
    """A different nonlinearity for each slice of the units."""
    parts = pre.chunk(7, dim=-1)
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda z: z,
        torch.tanh,
        torch.relu,
        lambda z: torch.sin(2 * z),
        lambda z: (z > 0.3).to(z.dtype),
        lambda z: z.square().clamp(max=9),
        torch.abs,
    )
    return torch.cat([function(part) for function, part in zip(functions, parts, strict=False)], dim=-1)


def causal_graph(
    num_tables: int, num_rows: int, num_columns: int, *, num_targets: int = 0, generator: torch.Generator
) -> tuple[Columns, Float[Tensor, "tables rows targets"]]:
    """Columns and targets that are units of one random causal graph, so that a target may cause its columns.

    The units of a layer are drawn from those of the layer before through sparse weights, one nonlinearity and noise.
    """
    needed = num_columns + num_targets
    num_layers = integer(1, 3, generator=generator)
    width = max(7, -(-2 * needed // num_layers))
    units = normal(num_tables, num_rows, integer(1, max(2, width // 2), generator=generator), generator=generator)
    collected = [units]
    density = uniform(1, low=0.1, high=0.9, generator=generator)
    for _ in range(num_layers):
        weights = normal(num_tables, units.shape[2], width, generator=generator)
        weights = weights * (torch.rand(weights.shape, generator=generator) < density + 1.5 / units.shape[2])
        noise = log_uniform(num_tables, 1, width, low=0.01, high=1.0, generator=generator)
        pre = standardise(units @ weights + 0.3 * normal(num_tables, 1, width, generator=generator))
        units = _activate(pre[..., torch.randperm(width, generator=generator)])
        units = standardise(units) + noise * normal(num_tables, num_rows, width, generator=generator)
        collected.append(units)
    every = torch.cat(collected, dim=2)
    chosen = take_columns(every, subset(num_tables, every.shape[2], needed, generator=generator))
    chosen = standardise(chosen)
    return chosen[..., :num_columns], chosen[..., num_columns:]


def sample_covariates(num_tables: int, num_rows: int, num_columns: int, *, generator: torch.Generator) -> Columns:
    """Columns of one of the four kinds, the same kind for all the tables drawn together."""
    kind = choose(("independent", "correlated", "clusters", "graph"), weights=(3, 3, 2, 3), generator=generator)
    if kind == "graph":
        return causal_graph(num_tables, num_rows, num_columns, generator=generator)[0]
    draw = {"independent": independent, "correlated": correlated, "clusters": clusters}[kind]
    return draw(num_tables, num_rows, num_columns, generator=generator)
