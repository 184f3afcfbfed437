"""Smooth and not so smooth scores: random networks, random Fourier features, sums of one-column functions.

    network    s = W2 f(W1 x + b)                          f one of tanh, relu, sine
    Fourier    s = sum_m a_m cos(2 pi w_m' x / l + p_m)    a draw of a Gaussian process with length scales l per column
    additive   s = sum_j f_j(x_j)                          f_j a step, hinge, wave, square or bump

Legend: B = tables drawn together, N = rows, R = relevant columns, H = hidden units, K = scores.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.tasks.tabular_prior.draws import choose, integer, log_uniform, normal, standardise, uniform

Columns = Float[Tensor, "tables rows relevant"]
Scores = Float[Tensor, "tables rows scores"]


def network_scores(x: Columns, num_scores: int, *, generator: torch.Generator) -> Scores:
    """The outputs of a random network with one or two hidden layers."""
    hidden = x
    functions: tuple[Callable[[Tensor], Tensor], ...] = (torch.tanh, torch.relu, torch.sin)
    function = choose(functions, weights=(2, 2, 1), generator=generator)
    for _ in range(integer(1, 2, generator=generator)):
        width = integer(2, 24, generator=generator)
        weights = normal(x.shape[0], hidden.shape[2], width, generator=generator)
        bias = normal(x.shape[0], 1, width, generator=generator)
        gain = log_uniform(x.shape[0], 1, 1, low=0.5, high=4.0, generator=generator)
        hidden = function(gain * standardise(hidden @ weights) + bias)
    return standardise(hidden @ normal(x.shape[0], hidden.shape[2], num_scores, generator=generator))


def fourier_scores(x: Columns, num_scores: int, *, generator: torch.Generator) -> Scores:
    """A draw of a Gaussian process with a squared-exponential kernel, by 64 random frequencies."""
    num_tables, _, num_columns = x.shape
    scale = log_uniform(num_tables, num_columns, 1, low=0.6, high=6.0, generator=generator)
    frequencies = normal(num_tables, num_columns, 64, generator=generator) / (scale * max(1.0, num_columns / 3) ** 0.5)
    phase = uniform(num_tables, 1, 64, high=2 * math.pi, generator=generator)
    waves = torch.cos(x @ frequencies + phase)
    return standardise(waves @ normal(num_tables, 64, num_scores, generator=generator))


def additive_scores(x: Columns, num_scores: int, *, generator: torch.Generator) -> Scores:
    """A sum of functions of one column each, two simple shapes per column."""
    num_tables, _, num_columns = x.shape
    total = x.new_zeros(num_tables, x.shape[1], num_scores)
    for _ in range(2):
        knot = normal(num_tables, 1, num_columns, generator=generator)
        rate = log_uniform(num_tables, 1, num_columns, low=0.5, high=3.0, generator=generator)
        kind = torch.randint(0, 5, (num_tables, 1, num_columns), generator=generator)
        moved = x - knot
        value = torch.where(kind == 0, (moved > 0).to(x.dtype), moved.relu())
        value = torch.where(kind == 2, torch.sin(rate * moved), value)
        value = torch.where(kind == 3, x.square().clamp(max=9), value)
        value = torch.where(kind == 4, torch.exp(-(rate * moved).square()), value)
        weights = normal(num_tables, num_columns, num_scores, generator=generator)
        weights = weights * log_uniform(num_tables, num_columns, 1, low=0.2, high=2.0, generator=generator)
        total = total + standardise(value) @ weights
    return standardise(total)
