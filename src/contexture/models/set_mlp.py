r"""A perceptron over a set of examples: what learns in context without attention.

    pooled_t = (1 / (t - 1)) sum_{s<t} phi(x_s, y_s),    0 before the first example
    prediction of y_t = psi(pooled_t, x_t)

phi and psi are perceptrons with GELU between their layers. The examples' order is lost in the mean; whatever psi is to
know of how many there are, or of one of them, has to pass through it (Zaheer et al. 2017, arXiv:1703.06114). Ahuja and
Lopez-Paz 2023, arXiv:2305.16704, hold transformers against it.
Shapes: x [batch, time, features], y [batch, time]; pooled [batch, time, width].
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.models.pairs import PairsOutput


@dataclass(frozen=True, kw_only=True)
class SetMLPConfig:
    """The shape of a perceptron over sets; `num_layers` maps make up each of phi and psi."""

    num_features: int
    width: int = 128
    num_layers: int = 3

    def __post_init__(self) -> None:
        if min(self.num_features, self.width) < 1 or self.num_layers < 2:
            raise InputError("a perceptron over sets needs at least one feature, a width of one and two layers")


class Perceptron(nn.Module):
    """Maps of a vector with GELU between them; those between hidden vectors are its `blocks`."""

    def __init__(self, sizes: tuple[int, ...], *, generator: torch.Generator) -> None:
        super().__init__()
        (first, *inner), last = pairwise(sizes[:-1]), sizes[-2:]
        self.enter = Linear(*first, generator=generator)
        self.blocks = nn.ModuleList(Linear(*size, generator=generator, gain=2**0.5) for size in inner)
        self.leave = Linear(*last, generator=generator)

    def forward(self, x: Float[Tensor, "batch time before"]) -> Float[Tensor, "batch time after"]:
        """Map every vector by itself."""
        hidden = F.gelu(self.enter(x))
        for block in self.blocks:
            hidden = F.gelu(block(hidden))
        return self.leave(hidden)


class SetMLP(nn.Module):
    """Pools a perceptron's vectors of the examples, and asks another about the query.

    >>> model = SetMLP(SetMLPConfig(num_features=3), generator=torch.Generator().manual_seed(0))
    >>> model(torch.ones(2, 5, 3), torch.ones(2, 5)).mean.shape
    torch.Size([2, 5])
    """

    def __init__(self, config: SetMLPConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        hidden = (config.width,) * (config.num_layers - 1)
        self.phi = Perceptron((config.num_features + 1, *hidden, config.width), generator=generator)
        self.psi = Perceptron((config.width + config.num_features, *hidden, 1), generator=generator)

    def forward(self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]) -> PairsOutput:
        """Predict every y_t from x up to t and y before t."""
        pairs = torch.cat((x, y.unsqueeze(-1)), -1)[:, :-1]
        counts = torch.arange(1, x.shape[1], device=x.device, dtype=x.dtype).unsqueeze(-1)
        pooled = F.pad(self.phi(pairs).cumsum(1) / counts, (0, 0, 1, 0))
        return PairsOutput(mean=self.psi(torch.cat((pooled, x), -1)).squeeze(-1))
