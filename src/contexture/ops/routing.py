"""Bringing together the tokens of a sequence that go the same way, in chunks of one size.

Every token goes to `routes` of the partitions. Within each partition the order is that of time, and every partition
begins at a chunk's edge, so that a chunk holds tokens of one partition alone. All shapes are known beforehand: there
are as many chunks as the least favourable routing needs, and those that are left over are empty.

shares: [batch, time, partitions]; slots = chunks * size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def routes(
    shares: Float[Tensor, "batch time partitions"], num_routes: int
) -> tuple[Float[Tensor, "batch time routes"], Int[Tensor, "batch time routes"]]:
    """The largest shares of every token and whose they are; of equal ones the first.

    >>> routes(torch.tensor([[[0.2, 0.5, 0.3]]]), 2)[1].tolist()
    [[[1, 2]]]
    """
    values, order = shares.sort(dim=-1, descending=True, stable=True)
    return values[..., :num_routes], order[..., :num_routes]


class Places(NamedTuple):
    """Where every (token, route) goes once tokens are brought together by partition.

    tokens: [batch, slots], whose token a slot holds; weights: [batch, slots], its share, zero in an empty slot; filled:
    [batch, slots]; slots: [batch, time * routes], where a token's route went; partitions: [batch, chunks]; begins:
    [batch, chunks], whether a chunk is its partition's first; ends: [batch, partitions], each one's last chunk, -1 for
    none.
    """

    tokens: Tensor
    weights: Tensor
    filled: Tensor
    slots: Tensor
    partitions: Tensor
    begins: Tensor
    ends: Tensor


def places(weights: Tensor, choices: Tensor, num_partitions: int, size: int) -> Places:
    """Bring tokens together by partition, in chunks of `size`; all shapes are known beforehand."""
    batch, _, num_routes = choices.shape
    weights, choices = weights.flatten(1), choices.flatten(1)
    items = choices.shape[1]
    chunks = (items + min(num_partitions, items) * (size - 1)) // size
    numbers = torch.arange(num_partitions, device=choices.device)
    counts = (choices.unsqueeze(-1) == numbers).sum(1)
    after = ((counts + size - 1) // size).cumsum(1)
    first = F.pad(after[:, :-1], (1, 0))
    ordered, order = choices.sort(dim=1, stable=True)
    # Within its partition an item's rank is its place among all, less what comes in the partitions before.
    moved = first * size - F.pad(counts.cumsum(1)[:, :-1], (1, 0))
    there = moved.gather(1, ordered) + torch.arange(items, device=choices.device)
    empty = torch.zeros(batch, chunks * size, dtype=torch.int64, device=choices.device)
    chunk = torch.arange(chunks, device=choices.device)
    partitions = (chunk.unsqueeze(-1) >= after.unsqueeze(1)).sum(-1).clamp(max=num_partitions - 1)
    return Places(
        tokens=empty.scatter(1, there, order // num_routes),
        weights=weights.new_zeros(empty.shape).scatter(1, there, weights.gather(1, order)),
        filled=empty.scatter(1, there, torch.ones_like(there)).bool(),
        slots=torch.zeros_like(order).scatter(1, order, there),
        partitions=partitions,
        begins=first.gather(1, partitions) == chunk,
        ends=torch.where(counts > 0, after - 1, -1),
    )


def take(x: Float[Tensor, "batch rows *rest"], index: Int[Tensor, "batch taken"]) -> Float[Tensor, "batch taken *rest"]:
    """x[b, index[b, i]], by rows of one table, whose gradient is a sum of rows."""
    offsets = torch.arange(x.shape[0], device=x.device).unsqueeze(1) * x.shape[1]
    taken = x.flatten(0, 1).index_select(0, (index + offsets).flatten())
    return taken.view(*index.shape, *x.shape[2:])
