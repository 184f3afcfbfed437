"""Products of decays between the positions of a chunk, from their logarithms.

    between[t, s] = f_{s+1} ... f_t for s <= t, and 0 above;    since[t] = f_0 ... f_t

log f: [..., size], at most 0. A factor below e^-60 counts as that, so that a decay of zero, whose logarithm is
minus infinity, is allowed.
"""

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = -60.0


def between(log_decay: Float[Tensor, "*lead size"]) -> Float[Tensor, "*lead size size"]:
    """The product of the decays after s up to t, for every t (rows) and s (columns).

    >>> between(torch.tensor([0.5, 0.5, 0.25]).log()).tolist()
    [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.125, 0.25, 1.0]]
    """
    summed = log_decay.clamp(min=SMALLEST).cumsum(-1)
    size = summed.shape[-1]
    above = torch.ones(size, size, dtype=torch.bool, device=summed.device).triu(1)
    return (summed.unsqueeze(-1) - summed.unsqueeze(-2)).masked_fill(above, -torch.inf).exp()


def since(log_decay: Float[Tensor, "*lead size"]) -> Float[Tensor, "*lead size"]:
    """The product of all decays up to t.

    >>> since(torch.tensor([0.5, 0.5, 0.25]).log()).tolist()
    [0.5, 0.25, 0.0625]
    """
    return log_decay.clamp(min=SMALLEST).cumsum(-1).exp()
