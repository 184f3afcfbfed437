"""What every leaf shares: the optional member axis, and initialisation from a generator that is passed in.

A *cohort* is K models of one shape held as one: each parameter p of a leaf carries a leading axis, p[K, ...], and the
input is folded, [K * batch, ...] with members outermost. Leaves are the only modules that hold parameters, so nothing
else in a model needs to know of cohorts: it sees a larger batch.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn


class Leaf(nn.Module):
    """A module that holds parameters and understands the member axis.

    `members` is None for a single model, or K once every parameter has been stacked to [K, ...].
    """

    members: int | None

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, /, **keywords: Any) -> Tensor:
            """Mix or map x."""

    def __init__(self) -> None:
        super().__init__()
        self.members = None

    def unfold(self, x: Tensor, *, trailing: int) -> Tensor:
        """Reshape [K * batch, ..., *kept] to [K, rows, *kept], where the last `trailing` axes are kept."""
        kept = x.shape[x.dim() - trailing :]
        return x.reshape(self.members or 1, -1, *kept)


def normal(*shape: int, std: float, generator: torch.Generator) -> nn.Parameter:
    """A parameter drawn once from a normal distribution of mean zero, on the generator's device."""
    values = torch.empty(shape, device=generator.device)
    return nn.Parameter(values.normal_(std=std, generator=generator))
