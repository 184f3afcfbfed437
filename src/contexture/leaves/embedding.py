"""One learned vector per index.

ids: int64 [K * batch, ...]; weight: [num_entries, width], or [K, num_entries, width] in a cohort.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.leaves.leaf import Leaf, normal


class Embedding(Leaf):
    """A table of vectors drawn from N(0, std^2)."""

    def __init__(self, num_entries: int, width: int, *, generator: torch.Generator, std: float = 1.0) -> None:
        super().__init__()
        self.num_entries, self.width = num_entries, width
        self.weight = normal(num_entries, width, std=std, generator=generator)

    def forward(self, ids: Int[Tensor, "*lead"]) -> Float[Tensor, "*lead width"]:
        """Look the vectors up."""
        if self.members is None:
            return F.embedding(ids, self.weight)
        rows = self.unfold(ids, trailing=0)
        offsets = torch.arange(self.members, device=ids.device).unsqueeze(1) * self.num_entries
        vectors = F.embedding(rows + offsets, self.weight.flatten(0, 1))
        return vectors.view(*ids.shape, self.width)
