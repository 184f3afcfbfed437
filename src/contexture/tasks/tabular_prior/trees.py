"""Scores that are sums of random decision trees.

    oblivious    one question per level for all nodes of the level: the leaf is a word of `depth` bits
    deep         a question of its own in every node, its threshold the value of a row that reached the node

Legend: B = tables drawn together, N = rows, R = relevant columns, M = trees, K = scores.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.tasks.tabular_prior.draws import integer, log_integer, normal, standardise, take_columns

Columns = Float[Tensor, "tables rows relevant"]
Scores = Float[Tensor, "tables rows scores"]


def oblivious_leaves(x: Columns, depth: int, *, generator: torch.Generator) -> Int[Tensor, "tables rows"]:
    """The leaf 0..2^depth-1 that each row reaches in one oblivious tree per table."""
    num_tables, num_rows, num_columns = x.shape
    columns = torch.randint(0, num_columns, (num_tables, depth), generator=generator)
    asked = take_columns(x, columns)
    rows = torch.randint(0, num_rows, (num_tables, 1, depth), generator=generator)
    bits = (asked > asked.gather(1, rows)).long()
    return (bits << torch.arange(depth)).sum(dim=2)


def deep_leaves(x: Columns, depth: int, *, generator: torch.Generator) -> Int[Tensor, "tables rows"]:
    """The leaf 0..2^depth-1 that each row reaches in one tree per table with a question of its own in every node."""
    num_tables, num_rows, num_columns = x.shape
    node = torch.zeros(num_tables, num_rows, dtype=torch.long)
    for level in range(depth):
        columns = torch.randint(0, num_columns, (num_tables, 2**level), generator=generator)
        asked = x.gather(2, columns.gather(1, node)[..., None]).squeeze(2)
        rank = torch.rand(num_tables, num_rows, generator=generator).argsort(dim=1)
        holder = torch.zeros(num_tables, 2**level, dtype=torch.long).scatter_reduce(1, node, rank, "amax")
        pivot_row = rank.argsort(dim=1).gather(1, holder)
        threshold = asked.gather(1, pivot_row).gather(1, node)
        node = 2 * node + (asked > threshold).long()
    return node


def tree_scores(x: Columns, num_scores: int, *, generator: torch.Generator) -> Scores:
    """The sum of one to a dozen trees of one kind, with normal values in their leaves."""
    depth = integer(1, 5, generator=generator)
    leaves = oblivious_leaves if integer(0, 2, generator=generator) == 0 else deep_leaves
    total = x.new_zeros(x.shape[0], x.shape[1], num_scores)
    for _ in range(log_integer(1, 12, generator=generator)):
        leaf = leaves(x, depth, generator=generator)
        values = normal(x.shape[0], 2**depth, num_scores, generator=generator)
        total = total + values.gather(1, leaf[..., None].expand(-1, -1, num_scores))
    return standardise(total)
