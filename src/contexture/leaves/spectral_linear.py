"""y = x W_hat' + b with W_hat = g W / s(W), s the largest singular value: sigma reparametrisation (Zhai et al., 2023,
arXiv:2303.06296).

    u <- W v / |W v|,  v <- W' u / |W' u|    one power iteration at every training pass, from the vectors kept
    s = u' W v                               its gradient reaches W alone

x: [K * batch, ..., num_in]; raw W: [num_out, num_in]; factor g: [1]; left u: [num_out]; right v: [num_in]; each with a
leading K in a cohort. u and v are parameters that ask for no gradient: saved, loaded and stacked as the others are.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.leaf import Leaf, normal
from contexture.leaves.linear import Linear


class SpectralLinear(Leaf):
    """An affine map whose weight has the spectral norm g, which is learned and starts at one.

    The kept vectors start as the leading singular vectors. In evaluation they stay as they are.

    >>> map = SpectralLinear(5, 3, generator=torch.Generator().manual_seed(0))
    >>> round(torch.linalg.matrix_norm(map.weight, 2).item(), 4)
    1.0
    """

    def __init__(
        self, num_in: int, num_out: int, *, generator: torch.Generator, bias: bool = True, gain: float = 1.0
    ) -> None:
        super().__init__()
        weight = normal(num_out, num_in, std=gain / math.sqrt(num_in), generator=generator)
        offset = nn.Parameter(torch.zeros(num_out, device=generator.device)) if bias else None
        self._take(weight, offset)

    @classmethod
    def of(cls, plain: Linear) -> "SpectralLinear":
        """The reparametrisation of a plain map, with its weight and offset."""
        made = cls.__new__(cls)
        Leaf.__init__(made)
        made._take(plain.weight, plain.bias)
        return made

    def _take(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        self.num_out, self.num_in = weight.shape
        self.raw, self.bias = weight, bias
        self.factor = nn.Parameter(weight.new_ones(1).detach())
        left, _, right = torch.linalg.svd(weight.detach(), full_matrices=False)
        self.left = nn.Parameter(left[:, 0].clone(), requires_grad=False)
        self.right = nn.Parameter(right[0].clone(), requires_grad=False)

    @property
    def weight(self) -> Float[Tensor, "*members num_out num_in"]:
        """W_hat, from the vectors that are kept."""
        # Copies: the vectors may turn again before these are read by the backward pass.
        u, v = self.left.clone(), self.right.clone()
        largest = torch.einsum("...o,...oi,...i->...", u, self.raw, v)
        return self.raw * (self.factor / largest.unsqueeze(-1)).unsqueeze(-1)

    @torch.no_grad()
    def turn(self) -> None:
        """One power iteration of the kept vectors."""
        self.left.copy_(F.normalize((self.raw @ self.right.unsqueeze(-1)).squeeze(-1), dim=-1))
        self.right.copy_(F.normalize((self.raw.mT @ self.left.unsqueeze(-1)).squeeze(-1), dim=-1))

    def forward(self, x: Float[Tensor, "*lead num_in"]) -> Float[Tensor, "*lead num_out"]:
        """Map the last axis of x from `num_in` to `num_out`."""
        if self.training:
            self.turn()
        weight, bias = self.weight, self.bias
        if self.members is None:
            return F.linear(x, weight, bias)
        rows = self.unfold(x, trailing=1)
        out = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
        return out.view(*x.shape[:-1], self.num_out)
