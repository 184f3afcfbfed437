"""y = x W' with a weight that is given once and never trained, such as random projections.

x: [K * batch, ..., num_in]; weight: [num_out, num_in], or [K, num_out, num_in] in a cohort. The weight is a parameter
that asks for no gradient: it is saved, loaded and stacked as the others are, and no optimiser moves it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.leaf import Leaf


class FrozenLinear(Leaf):
    """A linear map of the last axis that training leaves as it is."""

    def __init__(self, weight: Float[Tensor, "num_out num_in"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Float[Tensor, "*lead num_in"]) -> Float[Tensor, "*lead num_out"]:
        """Map the last axis of x from `num_in` to `num_out`."""
        if self.members is None:
            return F.linear(x, self.weight)
        return torch.bmm(self.unfold(x, trailing=1), self.weight.mT).view(*x.shape[:-1], -1)
