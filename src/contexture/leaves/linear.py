"""y = x W' + b, once per member.

x: [K * batch, ..., num_in]; weight: [num_out, num_in], or [K, num_out, num_in] in a cohort; bias: [num_out] or
[K, num_out]. In a cohort the product is one batched product over members.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.leaf import Leaf, normal


class Linear(Leaf):
    """An affine map of the last axis, with weights drawn from N(0, gain^2 / num_in) and a bias of zero."""

    def __init__(
        self, num_in: int, num_out: int, *, generator: torch.Generator, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.num_in, self.num_out = num_in, num_out
        self.weight = normal(num_out, num_in, std=gain / math.sqrt(num_in), generator=generator)
        self.bias = nn.Parameter(torch.zeros(num_out, device=generator.device)) if bias else None

    def forward(self, x: Float[Tensor, "*lead num_in"]) -> Float[Tensor, "*lead num_out"]:
        """Map the last axis of x from `num_in` to `num_out`."""
        if self.members is None:
            return F.linear(x, self.weight, self.bias)
        rows, weight = self.unfold(x, trailing=1), self.weight.mT
        bias = self.bias
        out = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight)
        return out.view(*x.shape[:-1], self.num_out)
