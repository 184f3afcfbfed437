"""A predictive distribution of a number by the probabilities of bins (Hollmann et al. 2025; the bar distribution).

    borders    b_i = 0.6 sinh(3 u_i), u_i evenly spaced in [-1, 1]: fine in the middle, six deviations wide
    density    constant within a bin; beyond the outermost borders an exponential tail of mean `TAIL`

All in units of the context's z-scored target.

Legend: B = tables, Q = queries, L = levels.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

NUM_BINS = 100
TAIL = 2.0


def bin_borders(*, dtype: torch.dtype = torch.float64) -> Float[Tensor, " borders"]:
    """The borders between neighbouring bins, ascending: one fewer than there are bins."""
    return (0.6 * torch.sinh(3.0 * torch.linspace(-1, 1, NUM_BINS - 1, dtype=torch.float64))).to(dtype)


def bin_index(z: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """The bin of each z-scored target.

    >>> bin_index(torch.tensor([-100.0, 0.01, 100.0])).tolist()
    [0, 50, 99]
    """
    return torch.searchsorted(bin_borders(dtype=z.dtype).to(z.device), z.contiguous())


def bin_moments(
    probabilities: Float[Tensor, "tables queries bins"],
) -> tuple[Float[Tensor, "tables queries"], Float[Tensor, "tables queries"]]:
    """Mean and variance of the distribution, in z-scored units; probabilities are computed with in their own dtype."""
    borders = bin_borders(dtype=probabilities.dtype).to(probabilities.device)
    middle = (borders[1:] + borders[:-1]) / 2
    centre = torch.cat([borders[:1] - TAIL, middle, borders[-1:] + TAIL])
    spread = torch.cat([borders.new_tensor([TAIL**2]), (borders[1:] - borders[:-1]).square() / 12])
    spread = torch.cat([spread, borders.new_tensor([TAIL**2])])
    mean = probabilities @ centre
    second = probabilities @ (centre.square() + spread)
    return mean, (second - mean.square()).clamp(min=0)


def bin_quantiles(
    probabilities: Float[Tensor, "tables queries bins"], levels: Float[Tensor, " levels"]
) -> Float[Tensor, "tables queries levels"]:
    """Quantiles of the distribution, in z-scored units; ascending wherever the levels are.

    >>> probabilities = torch.zeros(1, 1, NUM_BINS, dtype=torch.float64)
    >>> probabilities[..., 49:51] = 0.5
    >>> [round(value, 4) for value in bin_quantiles(probabilities, torch.tensor([0.0, 0.5])).flatten().tolist()]
    [-0.0368, 0.0]
    """
    borders = bin_borders(dtype=probabilities.dtype).to(probabilities.device)
    levels = levels.to(probabilities)
    upper = probabilities.cumsum(dim=-1)
    upper = upper / upper[..., -1:]
    wanted = levels.expand(*probabilities.shape[:-1], -1).contiguous()
    index = torch.searchsorted(upper[..., :-1].contiguous(), wanted, right=True)
    mass = (probabilities / probabilities.sum(dim=-1, keepdim=True)).gather(-1, index).clamp(min=1e-12)
    share = (1 - (upper.gather(-1, index) - wanted) / mass).clamp(1e-6, 1 - 1e-6)
    inner = index.clamp(1, NUM_BINS - 2)
    left, right = borders[inner - 1], borders[inner]
    value = left + share.clamp(0, 1) * (right - left)
    value = torch.where(index == 0, borders[0] + TAIL * share.log(), value)
    return torch.where(index == NUM_BINS - 1, borders[-1] - TAIL * (1 - share).log(), value)
