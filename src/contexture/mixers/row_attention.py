"""Attention between the rows of a table, column by column: every row sees the context rows and no other.

The other half of a two-axis transformer for tables (Hollmann et al. 2025). Queries never see each other, so that a
prediction does not depend on what else is asked; the keys and values of the context can be kept.

    o_i = sum_{j in context} softmax_j(c(n) q_i . k_j) v_j        c(n) = log(n) / (log(128) sqrt(dim))

The factor log(n) keeps attention as sharp over 1,000 rows as over 100 (Nakanishi 2025, "Scalable-softmax").

Legend: B = tables, N = rows, M = context rows, T = tokens of a row (columns), W = width.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.mixers.set_attention import set_attention
from contexture.protocols import MixerCard

USUAL_ROWS = 128


class ContextRows(NamedTuple):
    """The keys and values of the context rows, kept for later queries: [tables * tokens * heads, members, dim]."""

    key: Tensor
    value: Tensor


class RowAttention(nn.Module):
    """Multi-head attention over the context rows of each column.

    >>> mixer = RowAttention(8, num_heads=2, generator=torch.Generator().manual_seed(0))
    >>> mixer(torch.ones(1, 5, 8), context=torch.ones(1, 3, 8)).shape
    torch.Size([1, 5, 8])
    """

    card = MixerCard(
        name="row-attention",
        summary="The rows of a table attend, column by column, to the context rows alone.",
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

    def _split(self, x: Float[Tensor, "tables rows tokens width"]) -> Float[Tensor, "sets rows dim"]:
        tables, rows, tokens, width = x.shape
        dim = width // self.num_heads
        heads = x.view(tables, rows, tokens, self.num_heads, dim).permute(0, 2, 3, 1, 4)
        return heads.reshape(tables * tokens * self.num_heads, rows, dim)

    def remember(self, context: Float[Tensor, "tables members tokens width"]) -> ContextRows:
        """The keys and values of the context rows."""
        return ContextRows(key=self._split(self.key(context)), value=self._split(self.value(context)))

    def recall(
        self, x: Float[Tensor, "tables rows tokens width"], memory: ContextRows
    ) -> Float[Tensor, "tables rows tokens width"]:
        """The rows x attend to remembered context rows."""
        tables, rows, tokens, width = x.shape
        dim = width // self.num_heads
        scale = math.log(max(2, memory.key.shape[1])) / (math.log(USUAL_ROWS) * math.sqrt(dim))
        mixed = set_attention(self._split(self.query(x)), memory.key, memory.value, scale=scale)
        heads = mixed.view(tables, tokens, self.num_heads, rows, dim).permute(0, 3, 1, 2, 4)
        return self.output(heads.reshape(tables, rows, tokens, width))

    def forward(
        self,
        x: Float[Tensor, "tables rows width"],
        *,
        context: Float[Tensor, "tables members width"] | None = None,
        segments: Int[Tensor, "tables rows"] | None = None,
    ) -> Float[Tensor, "tables rows width"]:
        """The rows x of one column attend to the rows of `context`, or to themselves.

        Raises InputError if `segments` is given: each table is a set of its own.
        """
        if segments is not None:
            raise InputError("row attention takes one table per batch entry and no segments")
        members = x if context is None else context
        return self.recall(x.unsqueeze(2), self.remember(members.unsqueeze(2))).squeeze(2)
