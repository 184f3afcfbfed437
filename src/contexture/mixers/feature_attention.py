"""Attention between the cells of one row: every token of a row sees every token of the same row.

One half of a two-axis transformer for tables (Hollmann et al. 2025, "Accurate predictions on small data with a tabular
foundation model"). No positions: the order of the tokens does not matter.

Legend: B = sets (rows of tables), T = tokens of a row, M = tokens attended to, W = width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.mixers.set_attention import join_heads, set_attention, split_heads
from contexture.protocols import MixerCard


class FeatureAttention(nn.Module):
    """Multi-head attention over the tokens of each row.

    >>> mixer = FeatureAttention(8, num_heads=2, generator=torch.Generator().manual_seed(0))
    >>> mixer(torch.ones(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    card = MixerCard(
        name="feature-attention",
        summary="The cells of a table's row attend to each other.",
        paper="Hollmann et al., Accurate predictions on small data with a tabular foundation model, Nature 637",
        year=2025,
        causal=False,
        state="none",
        cost="quadratic",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        if width % num_heads:
            raise InputError(f"a width of {width} cannot be split into {num_heads} heads")
        self.num_heads = num_heads
        self.query = Linear(width, width, generator=generator, bias=False)
        self.key = Linear(width, width, generator=generator, bias=False)
        self.value = Linear(width, width, generator=generator, bias=False)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def forward(
        self,
        x: Float[Tensor, "sets tokens width"],
        *,
        context: Float[Tensor, "sets members width"] | None = None,
        segments: Int[Tensor, "sets tokens"] | None = None,
    ) -> Float[Tensor, "sets tokens width"]:
        """The tokens x of each row attend to `context` of the same row, or to themselves.

        Raises InputError if `segments` is given: rows are told apart by their axis already.
        """
        if segments is not None:
            raise InputError("feature attention works row by row and takes no segments")
        members = x if context is None else context
        q = split_heads(self.query(x), self.num_heads)
        k = split_heads(self.key(members), self.num_heads)
        v = split_heads(self.value(members), self.num_heads)
        return self.output(join_heads(set_attention(q, k, v, scale=q.shape[-1] ** -0.5), self.num_heads))
