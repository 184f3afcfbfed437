"""The pretrained in-context learner for tables: a table transformer's forward pass is its fit.

The table is put into a canonical order (learners/table_order.py), its columns and a numeric target are scaled by the
context's mean and deviation in fp64, and an ensemble of a few members sees it with the columns, and the classes, in
different orders; their predictive distributions are averaged. The context is encoded once; queries then only read.

Legend: B = episodes, E = members, N = rows, Q = queries, D = columns, C = classes.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.table_calibration import Calibration
from contexture.learners.table_order import canonical_order
from contexture.models.table_bins import bin_moments, bin_quantiles
from contexture.models.table_transformer import (
    TableCache,
    TableOutput,
    TableTransformer,
    TableTransformerConfig,
    num_tokens,
)
from contexture.protocols import LearnerCard, Pairs, Prediction, Schema
from contexture.randomness import generator

MAX_COLUMNS = 100
USUAL_ROWS = 1_000
MAX_ROWS = 20_000
QUERY_BLOCK = 128
ENCODE_BYTES = 2**28
LEVELS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995)


class Scale(NamedTuple):
    """An affine change of units, z = (value - offset) / unit, for each episode or each column of it."""

    offset: Tensor
    unit: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedTables:
    """Contexts encoded once; `predict` answers any number of queries about them.

    caches: one per block of (episode, member) tables; columns, classes: each table's order, [tables, D] and
    [tables, C]; features: how columns are scaled, [B, D]; target: how y is scaled, [B].
    """

    model: TableTransformer
    schema: Schema
    num_rows: int
    num_members: int
    calibration: Calibration
    caches: tuple[TableCache, ...]
    columns: Int[Tensor, "tables columns"]
    classes: Int[Tensor, "tables classes"]
    present: Bool[Tensor, "episodes classes"]
    features: Scale
    target: Scale

    def predict(self, queries: Float[Tensor, "episodes queries features"]) -> Prediction:
        """The prediction for each query; it does not depend on the other queries."""
        z = (queries.to(torch.float64) - self.features.offset[:, None]) / self.features.unit[:, None]
        tables = z.repeat_interleave(self.num_members, dim=0)
        tables = tables.gather(2, self.columns[:, None].expand(-1, z.shape[1], -1)).clamp(-1e6, 1e6).to(torch.float32)
        parts = [self._answer(block) for block in torch.split(tables, QUERY_BLOCK, dim=1)]
        joined = TableOutput(*(torch.cat(said, dim=1) for said in zip(*parts, strict=True)))
        return self._classes(joined.class_logits) if self.schema.num_classes else self._numbers(joined.bin_logits)

    @property
    def state_bytes(self) -> int:
        """The bytes kept of all contexts."""
        kept = [tensor for cache in self.caches for memory in cache.rows for tensor in memory]
        kept += [tensor for cache in self.caches for tensor in cache.statistics]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    @torch.no_grad()
    def _answer(self, block: Tensor) -> TableOutput:
        """One block of queries, padded to a fixed size so that the arithmetic does not depend on how many are asked."""
        asked = block.shape[1]
        padded = torch.nn.functional.pad(block, (0, 0, 0, QUERY_BLOCK - asked))
        sizes = [cache.present.shape[0] for cache in self.caches]
        said = [
            self.model.predict(cache, part) for cache, part in zip(self.caches, torch.split(padded, sizes), strict=True)
        ]
        return TableOutput(*(torch.cat(parts)[:, :asked] for parts in zip(*said, strict=True)))

    def _members(self, values: Tensor) -> Tensor:
        """The mean over an episode's members, in fp64."""
        return values.double().view(-1, self.num_members, *values.shape[1:]).mean(dim=1)

    def _classes(self, logits: Tensor) -> Prediction:
        """Probabilities in the schema's order; a class not seen yet keeps half a count among the rows."""
        num_classes = self.schema.num_classes
        member = (logits.double() / self.calibration.classes).softmax(dim=2)
        place = self.classes.argsort(dim=1)
        probabilities = self._members(member.gather(2, place[:, None].expand(-1, member.shape[1], -1)))
        unseen = 0.5 / (self.num_rows + 0.5 * num_classes)
        absent = (~self.present).double()[:, None]
        share = 1 - unseen * absent.sum(dim=2, keepdim=True)
        return Prediction(probabilities=probabilities * share + unseen * absent)

    def _numbers(self, logits: Tensor) -> Prediction:
        """Mean, variance and quantiles in the target's own units."""
        temperature = self.calibration.numbers(self.num_rows)
        probabilities = self._members((logits.double() / temperature).softmax(dim=2))
        mean, variance = bin_moments(probabilities)
        quantiles = bin_quantiles(probabilities, torch.tensor(LEVELS, dtype=torch.float64))
        unit, offset = self.target.unit[:, None], self.target.offset[:, None]
        return Prediction(
            mean=offset + unit * mean,
            variance=unit.square() * variance,
            levels=LEVELS,
            quantiles=offset[..., None] + unit[..., None] * quantiles,
        )


class TableTransformerLearner:
    """A pretrained table transformer as a learner of classes and of numbers.

    `num_members` forward passes with different orders of columns and classes are averaged, each with its logits divided
    by the temperatures of `calibration`. Takes raw tables: any scale,
    categorical codes, missing cells. Raises InputError beyond 100 columns, 10 classes or 20,000 rows, for infinite
    cells, and where the context would not fit into memory; warns beyond 1,000 rows.
    """

    card = LearnerCard(
        name="table-transformer",
        summary="A transformer pretrained on synthetic tables, which learns a table in its forward pass.",
        paper="Hollmann et al., Accurate predictions on small data with a tabular foundation model, Nature 637",
        year=2025,
        kind="in-context",
        targets=frozenset({"regression", "classification"}),
        prequential="refit",
        invariances=frozenset({"example-order", "column-order", "label-names"}),
        tables=True,
    )

    def __init__(
        self,
        model: TableTransformer,
        *,
        num_members: int = 4,
        calibration: Calibration = Calibration(),  # noqa: B008
    ) -> None:
        if num_members < 1:
            raise InputError(f"an ensemble needs at least one member, but num_members is {num_members}")
        self.model = model
        self.num_members = num_members
        self.calibration = calibration

    @classmethod
    def example(cls) -> Self:
        """A small model with random weights, for the laws."""
        config = TableTransformerConfig(width=16, num_layers=2, num_heads=2, hidden=16, num_thinking=2)
        return cls(TableTransformer(config, generator=generator(0, "table-transformer")), num_members=2)

    @property
    def num_parameters(self) -> int:
        """How many numbers the model has learned."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state_bytes(self, context: Pairs) -> int:
        """What has to be kept of one context to answer queries, in bytes."""
        return self.fit(context.select(torch.zeros(1, dtype=torch.int64))).state_bytes if context.time else 0

    def memory_bytes(self, num_rows: int, num_columns: int) -> int:
        """About how many bytes fitting a context of this size takes: what is kept, and the largest step on the way."""
        config, tokens = self.model.config, num_tokens(num_columns)
        cells = 4 * (num_rows + config.num_thinking) * config.width
        kept = self.num_members * 2 * cells * ((config.num_layers - 1) * tokens + 1)
        return kept + max(ENCODE_BYTES, 10 * cells * tokens) + 2**28

    def fit(self, context: Pairs) -> FittedTables:
        """Encode the contexts of all episodes once.

        Raises InputError for an empty context, and where the table is beyond the limits.
        """
        self._check(context)
        episodes = [_Canonical.of(context, episode) for episode in range(context.batch)]
        orders = [self._orders(episode, member) for episode in episodes for member in range(self.num_members)]
        columns = torch.stack([order[0] for order in orders])
        classes = torch.stack([order[1] for order in orders])
        x = torch.stack([episode.x for episode in episodes]).repeat_interleave(self.num_members, dim=0)
        flags = torch.stack([episode.categorical for episode in episodes]).repeat_interleave(self.num_members, dim=0)
        y = torch.stack([episode.y for episode in episodes]).repeat_interleave(self.num_members, dim=0)
        if context.schema.num_classes:
            y = classes.argsort(dim=1).gather(1, y.long())
        x = x.gather(2, columns[:, None].expand_as(x))
        codes = torch.arange(max(1, context.schema.num_classes))
        return FittedTables(
            model=self.model,
            schema=context.schema,
            num_rows=context.time,
            num_members=self.num_members,
            calibration=self.calibration,
            caches=self._encode(x.float(), y.float(), flags.gather(1, columns), context.schema.num_classes),
            columns=columns,
            classes=classes,
            present=(context.y[..., None] == codes).any(dim=1),
            features=Scale(*(torch.stack(part) for part in zip(*(e.features for e in episodes), strict=True))),
            target=Scale(*(torch.stack(part) for part in zip(*(e.target for e in episodes), strict=True))),
        )

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Predict every query after all of the context."""
        if queries.shape[2] != len(context.schema.features):
            raise InputError(f"the context has {len(context.schema.features)} features, the queries {queries.shape[2]}")
        if torch.isinf(queries).any():
            raise InputError("the queries hold an infinite cell: replace it by a number or mark it as missing")
        if not context.time or not queries.shape[1]:
            return _before_any_example(context.schema, queries)
        return self.fit(context).predict(queries)

    def prequential(self, episodes: Pairs) -> Prediction:
        """Predict y_t from x up to t and y before t by a fit to every prefix: costly, and exact."""
        said = [self.predict(episodes.prefix(t), episodes.x[:, t : t + 1]) for t in range(episodes.time)]
        fields = ("mean", "variance", "probabilities", "quantiles")
        columns = {field: [getattr(one, field) for one in said] for field in fields}
        joined = {field: None if parts[0] is None else torch.cat(parts, dim=1) for field, parts in columns.items()}
        return Prediction(levels=said[0].levels, **joined)

    @torch.no_grad()
    def _encode(self, x: Tensor, y: Tensor, categorical: Tensor, num_classes: int) -> tuple[TableCache, ...]:
        """Encode the tables a few at a time."""
        cells = 40 * (x.shape[1] + self.model.config.num_thinking) * self.model.config.width * num_tokens(x.shape[2])
        size = max(1, ENCODE_BYTES // cells)
        count = torch.full((x.shape[0],), num_classes)
        parts = zip(*(torch.split(part, size) for part in (x, y, categorical, count)), strict=True)
        return tuple(self.model.encode_context(a, b, categorical=c, num_classes=d) for a, b, c, d in parts)

    def _orders(self, episode: "_Canonical", member: int) -> tuple[Tensor, Tensor]:
        """A member's order of columns and classes: the canonical one, then random permutations of it."""
        if member == 0:
            return episode.columns, episode.classes
        source = generator("table-transformer", "member", member)
        columns = episode.columns[torch.randperm(len(episode.columns), generator=source)]
        return columns, episode.classes[torch.randperm(len(episode.classes), generator=source)]

    def _check(self, context: Pairs) -> None:
        """Refuse what is beyond the limits, in one sentence."""
        name, rows, columns = self.card.name, context.time, len(context.schema.features)
        most = self.model.config.max_classes
        if not rows:
            raise InputError(f"{name} can be fitted to one row at least, but the context is empty")
        if not 1 <= columns <= MAX_COLUMNS:
            raise InputError(f"{name} takes 1 to {MAX_COLUMNS} columns, but the table has {columns}: choose columns")
        if context.schema.num_classes > most:
            raise InputError(
                f"{name} tells at most {most} classes apart, but the target {context.schema.target.name!r} has "
                f"{context.schema.num_classes}: merge rare classes or choose another learner"
            )
        if torch.isinf(context.x).any() or not torch.isfinite(context.y).all():
            raise InputError(f"{name} takes finite numbers, but a cell is infinite or a target missing: mend the table")
        needed = self.memory_bytes(rows, columns)
        if rows > MAX_ROWS or needed > _free_memory():
            raise InputError(
                f"{name} would need about {needed / 2**30:.1f} GiB for {rows} rows of {columns} columns: "
                f"show it fewer rows (at most {MAX_ROWS})"
            )
        if rows > USUAL_ROWS:
            warnings.warn(
                f"{name} was trained on contexts of up to 600 rows; {rows} rows take about {needed / 2**30:.1f} GiB",
                UserWarning,
                stacklevel=3,
            )


class _Canonical(NamedTuple):
    """One episode's context: rows in canonical order, cells scaled, and how columns and classes are to be ordered."""

    x: Tensor
    y: Tensor
    categorical: Tensor
    columns: Tensor
    classes: Tensor
    features: Scale
    target: Scale

    @classmethod
    def of(cls, context: Pairs, episode: int) -> "_Canonical":
        schema = context.schema
        x = context.x[episode].double().numpy()
        y = context.y[episode].double().numpy()
        categorical = np.array([column.kind == "categorical" for column in schema.features])
        order = canonical_order(x, y, categorical, schema.num_classes)
        x, y = x[order.rows], y[order.rows]
        offset, unit = _scale_of(x)
        target = (np.zeros(1), np.ones(1)) if schema.num_classes else _scale_of(y[:, None])
        return cls(
            x=torch.from_numpy((x - offset) / unit),
            y=torch.from_numpy((y - target[0]) / target[1]),
            categorical=torch.from_numpy(categorical),
            columns=torch.from_numpy(order.columns),
            classes=torch.from_numpy(order.classes) if schema.num_classes else torch.zeros(1, dtype=torch.int64),
            features=Scale(torch.from_numpy(offset), torch.from_numpy(unit)),
            target=Scale(torch.from_numpy(target[0])[0], torch.from_numpy(target[1])[0]),
        )


def _scale_of(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column's known cells, safe for very large numbers.

    A constant column says little of its spread: its unit is its size (or one) over the number of rows.
    """
    known = ~np.isnan(x)
    size = np.abs(np.where(known, x, 0.0)).max(axis=0)
    size = np.where(size > 0, size, 1.0)
    count = np.maximum(known.sum(axis=0), 1)
    small = np.where(known, x / size, 0.0)
    mean = small.sum(axis=0) / count
    deviation = np.sqrt((np.where(known, small - mean, 0.0) ** 2).sum(axis=0) / count)
    constant = deviation <= 1e-12
    return mean * size, np.where(constant, 1.0 / count, deviation) * size


def _before_any_example(schema: Schema, queries: Tensor) -> Prediction:
    """What is said of queries before any example: every class alike, or a standard normal number."""
    shape = queries.shape[:2]
    if schema.num_classes:
        return Prediction(probabilities=torch.full((*shape, schema.num_classes), 1 / schema.num_classes).double())
    quantiles = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    return Prediction(
        mean=torch.zeros(shape, dtype=torch.float64),
        variance=torch.ones(shape, dtype=torch.float64),
        levels=LEVELS,
        quantiles=quantiles.expand(*shape, -1),
    )


def _free_memory(meminfo: Path = Path("/proc/meminfo")) -> float:
    """The bytes of memory that can be had, where the platform says so; otherwise no bound.

    Pages that hold copies of files count as free, since the system gives them up: on a machine that has read many
    files hardly any memory is unused.
    """
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return float("inf")
    return 1024.0 * int(found[1]) if found else float("inf")
