r"""How what is needed grows with the size of a problem: where errors cross a tolerance, and the slope of logarithms.

    count_n such that error_n(count_n) = tolerance,     slope of log count_n over log n: the power by which it grows

Shapes: found [points, samples].
"""

from collections.abc import Sequence
from math import log

import torch
from jaxtyping import Float
from torch import Tensor


def slope(at: Sequence[float], found: Float[Tensor, "points samples"]) -> Float[Tensor, " samples"]:
    """The slopes of the logarithms of `found` over those of `at`, by least squares.

    >>> slope((1, 10, 100), torch.tensor([[2.0], [20.0], [200.0]]).double()).round(decimals=9).tolist()
    [1.0]
    """
    along = torch.tensor(at, dtype=torch.float64).log()
    along = along - along.mean()
    return (along[:, None] * found.log()).sum(0) / along.square().sum()


def crossing(counts: Sequence[int], off: Sequence[float], *, tolerance: float) -> float:
    """The count, between those that were tried, at which the error falls below the tolerance for good.

    Between two counts the error's logarithm is taken to be straight.

    >>> crossing((1, 2, 4), (1.0, 0.1, 0.001), tolerance=0.01)
    3.0
    """
    logs = [log(max(one, 1e-15) / tolerance) for one in off]
    place = max((i for i, one in enumerate(logs[:-1]) if one > 0), default=0)
    part = min(max(logs[place] / (logs[place] - logs[place + 1]), 0.0), 1.0)
    return counts[place] + part * (counts[place + 1] - counts[place])
