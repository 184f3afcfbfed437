"""A transformer that learns from a table in its forward pass: attention over features, then over rows.

    tokens    of a row: groups of three neighbouring columns (cyclically), every `stride` columns, and one target token
    layer     x += FeatureAttention(LN x);  x += RowAttention(LN x, context rows);  x += W2 relu(W1 LN x)
    last      layer: the target token alone is computed, from all tokens of its row and the context's target tokens
    head      ten class logits, those absent from the context masked; and bins of the z-scored target

The architecture follows Hollmann et al. 2025 (TabPFN v2): two-axis attention, learned "thinking" rows that belong to
every context, columns grouped by circular shifts. Rows have no order. The order of columns matters through grouping.

Legend: B = tables, N = rows, M = context rows, Q = queries, D = columns, T = tokens of a row (target last), W = width.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from contexture.leaves.embedding import Embedding
from contexture.leaves.linear import Linear
from contexture.leaves.norm import LayerNorm
from contexture.mixers.feature_attention import FeatureAttention
from contexture.mixers.row_attention import ContextRows, RowAttention
from contexture.models.table_bins import NUM_BINS
from contexture.models.table_encoding import (
    CELL_CHANNELS,
    TARGET_CHANNELS,
    ColumnStatistics,
    encode_cells,
    encode_target,
    measure_columns,
)

GROUP = 3
WRITE_GAIN = 0.3
EMBEDDING_STD = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class TableTransformerConfig:
    """The sizes of a table transformer."""

    width: int = 128
    num_layers: int = 4
    num_heads: int = 2
    hidden: int = 256
    num_thinking: int = 12
    max_classes: int = 10


def group_stride(num_columns: int) -> int:
    """How many columns lie between the first columns of neighbouring tokens: wide tables get fewer tokens.

    >>> [group_stride(num_columns) for num_columns in (6, 16, 100)]
    [1, 2, 3]
    """
    return 1 if num_columns <= 6 else 2 if num_columns <= 16 else 3


def num_tokens(num_columns: int) -> int:
    """The tokens of a row, the target's included."""
    return -(-num_columns // group_stride(num_columns)) + 1


class TableCache(NamedTuple):
    """A context encoded once: column statistics, and each layer's keys and values of the context rows."""

    statistics: ColumnStatistics
    categorical: Tensor
    rows: tuple[ContextRows, ...]
    present: Tensor
    num_classes: Tensor


class TableOutput(NamedTuple):
    """What the heads say of each query: class_logits [tables, queries, classes], bin_logits [tables, queries, bins]."""

    class_logits: Tensor
    bin_logits: Tensor


class TableLayer(nn.Module):
    """One layer: feature attention, row attention, feed-forward, each on a normalised input and added."""

    def __init__(self, config: TableTransformerConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        width, heads = config.width, config.num_heads
        self.feature_norm = LayerNorm(width)
        self.feature = FeatureAttention(width, num_heads=heads, generator=generator, gain=WRITE_GAIN)
        self.row_norm = LayerNorm(width)
        self.row = RowAttention(width, num_heads=heads, generator=generator, gain=WRITE_GAIN)
        self.hidden_norm = LayerNorm(width)
        self.up = Linear(width, config.hidden, generator=generator, bias=False)
        self.down = Linear(config.hidden, width, generator=generator, bias=False, gain=WRITE_GAIN)

    def _within_rows(self, x: Tensor, *, target_only: bool) -> Tensor:
        normed = self.feature_norm(x)
        every = normed.flatten(0, 1)
        mixed: Tensor
        if target_only:
            x, mixed = x[:, :, -1:], self.feature(every[:, -1:], context=every)
        else:
            mixed = self.feature(every)
        return x + mixed.view_as(x)

    def _finish(self, x: Tensor, normed: Tensor, memory: ContextRows) -> Tensor:
        x = x + self.row.recall(normed, memory)
        hidden = self.up(self.hidden_norm(x)).relu()
        return x + self.down(hidden)

    def forward(self, x: Tensor, *, num_members: int, target_only: bool) -> tuple[Tensor, ContextRows]:
        """All rows at once, the first `num_members` being the context; also what later queries need of it."""
        x = self._within_rows(x, target_only=target_only)
        normed = self.row_norm(x)
        memory = self.row.remember(normed[:, :num_members])
        return self._finish(x, normed, memory), memory

    def query(self, x: Tensor, memory: ContextRows, *, target_only: bool) -> Tensor:
        """Queries alone, against a remembered context."""
        x = self._within_rows(x, target_only=target_only)
        return self._finish(x, self.row_norm(x), memory)


class TableTransformer(nn.Module):
    """Predicts the targets of query rows from context rows, for classes and for numbers, with one set of weights."""

    def __init__(self, config: TableTransformerConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cell = Linear(GROUP * CELL_CHANNELS, width, generator=generator)
        self.target_class = Embedding(config.max_classes + 1, width, generator=generator, std=EMBEDDING_STD)
        self.target_number = Linear(TARGET_CHANNELS, width, generator=generator)
        self.target_unknown = Embedding(2, width, generator=generator, std=EMBEDDING_STD)
        self.thinking = Embedding(2 * config.num_thinking, width, generator=generator, std=EMBEDDING_STD)
        self.layers = nn.ModuleList([TableLayer(config, generator=generator) for _ in range(config.num_layers)])
        self.head_norm = LayerNorm(width)
        self.class_hidden = Linear(width, config.hidden, generator=generator)
        self.class_logits = Linear(config.hidden, config.max_classes, generator=generator, gain=WRITE_GAIN)
        self.bin_hidden = Linear(width, config.hidden, generator=generator)
        self.bin_logits = Linear(config.hidden, NUM_BINS, generator=generator, gain=WRITE_GAIN)

    def _cells(self, x: Tensor, categorical: Tensor, statistics: ColumnStatistics) -> Tensor:
        """The feature tokens [tables, rows, tokens - 1, width]."""
        cells = encode_cells(x, categorical, statistics)
        first = torch.arange(0, x.shape[2], group_stride(x.shape[2]), device=x.device)
        grouped = [cells[:, :, (first + shift) % x.shape[2]] for shift in range(GROUP)]
        return self.cell(torch.cat(grouped, dim=-1))

    def _context_targets(self, y: Tensor, num_classes: Tensor) -> Tensor:
        """The target tokens of the context [tables, members, width]."""
        codes = y.nan_to_num().clamp(0, self.config.max_classes - 1).long()
        as_class = self.target_class(codes)
        as_number = self.target_number(encode_target(y, measure_columns(y[..., None])))
        return torch.where(num_classes[:, None, None] > 0, as_class, as_number)

    def _query_targets(self, num_queries: int, num_classes: Tensor) -> Tensor:
        unknown = self.target_unknown((num_classes > 0).long())
        return unknown[:, None].expand(-1, num_queries, -1)

    def _thinking_rows(self, num_tables: int, tokens: int) -> Tensor:
        """The learned rows [tables, thinking, tokens, width]: one vector for feature tokens, one for the target's."""
        feature, target = self.thinking.weight.chunk(2)
        rows = torch.cat([feature[:, None].expand(-1, tokens - 1, -1), target[:, None]], dim=1)
        return rows[None].expand(num_tables, -1, -1, -1)

    def _present(self, y: Tensor, num_classes: Tensor) -> Bool[Tensor, "tables classes"]:
        """Which classes the context shows; all of them for a regression, whose class logits nobody reads."""
        codes = torch.arange(self.config.max_classes, device=y.device)
        return (y[:, :, None] == codes).any(dim=1) | (num_classes == 0)[:, None]

    def _heads(self, target: Tensor, present: Tensor) -> TableOutput:
        with torch.autocast(target.device.type, enabled=False):
            state = self.head_norm(target.float() if target.dtype == torch.bfloat16 else target)
            classes = self.class_logits(self.class_hidden(state).relu())
            bins = self.bin_logits(self.bin_hidden(state).relu())
        return TableOutput(classes.masked_fill(~present[:, None], -torch.inf), bins)

    def _run_layers(self, x: Tensor, num_members: int) -> tuple[Tensor, tuple[ContextRows, ...]]:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        memories = []
        for index, layer in enumerate(self.layers):
            x, memory = layer(x, num_members=num_members, target_only=index == len(self.layers) - 1)
            memories.append(memory)
        return x[:, :, 0], tuple(memories)

    def forward(
        self,
        x: Float[Tensor, "tables rows columns"],
        y: Float[Tensor, "tables members"],
        *,
        categorical: Bool[Tensor, "tables columns"],
        num_classes: Int[Tensor, " tables"],
    ) -> TableOutput:
        """Context rows (the first, as many as y has) and queries in one pass; num_classes is 0 for a regression."""
        num_members = y.shape[1]
        statistics = measure_columns(x[:, :num_members])
        targets = torch.cat(
            [self._context_targets(y, num_classes), self._query_targets(x.shape[1] - num_members, num_classes)], dim=1
        )
        tokens = torch.cat([self._cells(x, categorical, statistics), targets[:, :, None]], dim=2)
        tokens = torch.cat([self._thinking_rows(x.shape[0], tokens.shape[2]), tokens], dim=1)
        num_members += self.config.num_thinking
        state, _ = self._run_layers(tokens, num_members)
        return self._heads(state[:, num_members:], self._present(y, num_classes))

    def encode_context(
        self,
        x: Float[Tensor, "tables members columns"],
        y: Float[Tensor, "tables members"],
        *,
        categorical: Bool[Tensor, "tables columns"],
        num_classes: Int[Tensor, " tables"],
    ) -> TableCache:
        """Run the context alone and keep what queries need."""
        statistics = measure_columns(x)
        targets = self._context_targets(y, num_classes)
        tokens = torch.cat([self._cells(x, categorical, statistics), targets[:, :, None]], dim=2)
        tokens = torch.cat([self._thinking_rows(x.shape[0], tokens.shape[2]), tokens], dim=1)
        _, rows = self._run_layers(tokens, tokens.shape[1])
        return TableCache(statistics, categorical, rows, self._present(y, num_classes), num_classes)

    def predict(self, cache: TableCache, queries: Float[Tensor, "tables queries columns"]) -> TableOutput:
        """What `forward` says of the queries, from a context encoded before."""
        unknown = self._query_targets(queries.shape[1], cache.num_classes)
        x = torch.cat([self._cells(queries, cache.categorical, cache.statistics), unknown[:, :, None]], dim=2)
        for index, (layer, memory) in enumerate(zip(self.layers, cache.rows, strict=True)):
            x = cast(TableLayer, layer).query(x, memory, target_only=index == len(self.layers) - 1)
        return self._heads(x[:, :, 0], cache.present)
