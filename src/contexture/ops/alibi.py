"""The slopes of attention with linear biases (ALiBi; Press et al., 2021, arXiv:2108.12409).

Head h adds -m_h (t - s) to the score of a query at t and a key at s. For a power of two of heads the slopes are the
geometric row m_h = 2^(-8 h / num_heads), h = 1, 2, ...; for another number n they are those of the largest power of two
p below n, and then every other slope of 2p heads, from the first on.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def slopes(num_heads: int, *, device: torch.device | str = "cpu") -> Float[Tensor, " heads"]:
    """One slope per head, in fp32.

    >>> slopes(4).tolist(), slopes(3).tolist()
    ([0.25, 0.0625, 0.015625, 0.00390625], [0.0625, 0.00390625, 0.25])
    """
    power = 1 << (num_heads.bit_length() - 1)
    rest = _geometric(2 * power)[::2][: num_heads - power]
    return torch.tensor(_geometric(power) + rest, dtype=torch.float32, device=device)


def _geometric(num_heads: int) -> list[float]:
    return [2.0 ** (-8 * head / num_heads) for head in range(1, num_heads + 1)]
