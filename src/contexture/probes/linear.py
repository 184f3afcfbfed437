r"""Linear probes at every token: what can be read from hidden vectors by one affine map.

    A, b = argmin sum |A h_i + b - t_i|^2,     left = |A h + b - t|^2 on other samples, over the spread of t

Alain and Bengio 2016, arXiv:1610.01644. In closed form; a little ridge keeps vectors that lie in a subspace apart.
Shapes: h [samples, width], targets [samples, size].
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

PENALTY = 1e-6
"""Over the mean square of the vectors."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearProbe:
    """An affine map that has been fitted."""

    weight: Float[Tensor, "width size"]
    shift: Float[Tensor, " size"]

    def __call__(self, h: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows size"]:
        """What is read from hidden vectors, in fp64."""
        return h.double() @ self.weight + self.shift


def fit_linear(h: Float[Tensor, "samples width"], targets: Float[Tensor, "samples size"]) -> LinearProbe:
    """Fit by least squares.

    >>> h = torch.tensor([[0.0], [1.0], [2.0]])
    >>> probe = fit_linear(h, 3 * h + 1)
    >>> probe(torch.tensor([[5.0]])).round().tolist()
    [[16.0]]
    """
    h, targets = h.double(), targets.double()
    middle, wanted = h.mean(0), targets.mean(0)
    centred = h - middle
    second = centred.mT @ centred / len(h)
    second += PENALTY * second.diagonal().mean() * torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
    weight = torch.linalg.solve(second, centred.mT @ (targets - wanted) / len(h))
    return LinearProbe(weight=weight, shift=wanted - middle @ weight)
