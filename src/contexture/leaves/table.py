"""A learned tensor that is read whole: filters, matrices over positions, a system's coefficients.

weight: [*shape], or [K, *shape] in a cohort. It is read as [groups, *shape], one group for a plain model and K for a
cohort, by ops whose batch is groups times as large as that of one group, groups outermost.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contexture.leaves.leaf import Leaf


class Table(Leaf):
    """A parameter that starts at `initial`, which is copied."""

    def __init__(self, initial: Float[Tensor, "*shape"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial.detach().clone())

    def read(self) -> Float[Tensor, "groups *shape"]:
        """The tensor of every group, groups first."""
        return self.weight.unsqueeze(0) if self.members is None else self.weight


def drawn(*shape: int, std: float, generator: torch.Generator) -> Table:
    """A table of draws from N(0, std^2), on the generator's device."""
    values = torch.empty(shape, device=generator.device)
    return Table(values.normal_(std=std, generator=generator))
