r"""Linear probes of classes: what ridge regression onto one-hot classes reads from hidden vectors.

    W = argmin |H W - onehot(c)|^2 + penalty |W|^2,    read = argmax of h W

H has a column of ones, and its other columns are brought to mean zero and unit spread. Alain and Bengio 2016,
arXiv:1610.01644, fit such classifiers to the layers of a network.
Shapes: h [batch, width], classes int64 [batch].
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearProbe:
    """A fitted probe: weights [width + 1, classes] for vectors less `centre`, over `spread`."""

    weights: Float[Tensor, "inputs classes"]
    centre: Float[Tensor, " width"]
    spread: Float[Tensor, " width"]

    @classmethod
    def fit(
        cls, h: Float[Tensor, "batch width"], classes: Int[Tensor, " batch"], *, num_classes: int, penalty: float = 1.0
    ) -> Self:
        """Solve for the weights; the penalty is in units of one example.

        >>> h = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
        >>> probe = LinearProbe.fit(h, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> probe(torch.tensor([[2.0], [3.0]])).tolist()
        [0, 1]
        """
        h = h.double()
        centre, spread = h.mean(0), h.std(0).clamp(min=1e-9)
        inputs = F.pad((h - centre) / spread, (0, 1), value=1.0)
        moment = inputs.mT @ inputs + penalty * torch.eye(inputs.shape[1], dtype=h.dtype)
        weights = torch.linalg.solve(moment, inputs.mT @ F.one_hot(classes, num_classes).double())
        return cls(weights=weights, centre=centre, spread=spread)

    def __call__(self, h: Float[Tensor, "batch width"]) -> Int[Tensor, " batch"]:
        """The class that is read from each vector."""
        inputs = F.pad((h.double() - self.centre) / self.spread, (0, 1), value=1.0)
        return (inputs @ self.weights).argmax(1)
