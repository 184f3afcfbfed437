"""The system that keeps a sliding window as coefficients of Legendre polynomials (Voelker et al., 2019, Legendre Memory
Units).

    theta m'(t) = A m(t) + b u(t),    A_ij = (2i + 1) (-1 if i < j else (-1)^(i - j + 1)),    b_i = (2i + 1) (-1)^i
    u(t - r theta) ~ sum_i P_i(2r - 1) m_i(t)  for 0 <= r <= 1

m: [order]; time is in tokens, theta the window's length; the input holds its value until the next token.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def legendre_system(order: int, theta: float) -> tuple[Float[Tensor, "order order"], Float[Tensor, " order"]]:
    """Matrix and drive of the step from one token to the next (zero-order hold), in fp64.

    >>> matrix, drive = legendre_system(1, 4.0)
    >>> round(matrix.item(), 4), round(drive.item(), 4)
    (0.7788, 0.2212)
    """
    degree = torch.arange(order, dtype=torch.float64)
    scale = (2 * degree + 1) / theta
    sign = 1 - 2 * (degree % 2)
    rows, columns = degree.unsqueeze(1), degree.unsqueeze(0)
    held = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    held[:order, :order] = scale.unsqueeze(1) * torch.where(rows < columns, -1.0, -sign.unsqueeze(1) * sign)
    held[:order, order] = scale * sign
    step = torch.linalg.matrix_exp(held)
    return step[:order, :order], step[:order, order]


def legendre_read_out(order: int, delay: Float[Tensor, " delays"]) -> Float[Tensor, "delays order"]:
    """The weights that decode the input as it was `delay` windows ago, 0 <= delay <= 1.

    >>> legendre_read_out(3, torch.tensor([0.0, 0.5, 1.0])).tolist()
    [[1.0, -1.0, 1.0], [1.0, 0.0, -0.5], [1.0, 1.0, 1.0]]
    """
    x = 2 * delay - 1
    known = [torch.ones_like(x), x]
    for i in range(1, order - 1):
        known.append(((2 * i + 1) * x * known[i] - i * known[i - 1]) / (i + 1))
    return torch.stack(known[:order], 1)
