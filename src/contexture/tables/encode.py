"""Datasets and matched tables to the tensors and schemas that learners take."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from contexture.protocols import Column, Pairs, Schema
from contexture.tables.dataset import Dataset
from contexture.tables.match import MatchedTable
from contexture.tables.schema import TableColumn, TableSchema

__all__ = ["encode_pairs", "encode_queries", "encode_schema"]


def encode_schema(schema: TableSchema) -> Schema:
    """Return what a learner has to know of a table's columns."""
    return Schema(features=tuple(map(_column, schema.features)), target=_column(schema.target))


def encode_pairs(
    dataset: Dataset,
    *,
    rows: Int64[np.ndarray, "batch time"] | None = None,
    schema: Schema | None = None,
) -> Pairs:
    """Return rows of a dataset as episodes, one for each row of `rows`; without it, all rows in order as one episode.

    x: float64 [batch, time, features]; y: float64 or int64 [batch, time].

    >>> from contexture.tables.build import table_dataset
    >>> from contexture.tables.frame import Table
    >>> table = Table.from_columns(["x", "y"], [[str(i) for i in range(12)], ["no", "yes"] * 6])
    >>> pairs = encode_pairs(table_dataset(table, target="y"))
    >>> pairs.x.shape, pairs.y.dtype, pairs.schema.num_classes
    (torch.Size([1, 12, 1]), torch.int64, 2)
    """
    chosen = np.arange(dataset.num_rows)[None] if rows is None else rows
    return Pairs(
        x=torch.from_numpy(dataset.x[chosen]),
        y=torch.from_numpy(dataset.y[chosen]),
        schema=schema or encode_schema(dataset.schema),
    )


def encode_queries(table: MatchedTable) -> Float[Tensor, "1 rows features"]:
    """Return the features of new rows as the queries of one episode, float64."""
    return torch.from_numpy(table.x)[None]


def _column(column: TableColumn) -> Column:
    return Column(name=column.name, kind=column.kind, categories=column.categories)
