r"""What the heads of an attention layer amount to, whatever the bases in which their weights are written.

    key-query      W_K' W_Q                what a head's scores are made of
    target-value   -(the last row of P W_V)   what a head adds to the prediction, per unit of what it attends to

Both are products in which a change of basis inside the head cancels (Elhage et al. 2021, "A mathematical framework for
transformer circuits"). The sign is that of the read-out of `contexture.models.self_attention`.
Shapes: width = that of a token (x, y).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.models.self_attention import SelfAttention


def key_query(layer: SelfAttention) -> Float[Tensor, "heads width width"]:
    """Each head's product of keys and queries: rows go with the token that is looked at, columns with the query."""
    keys, queries = (leaf.weight.detach().double() for leaf in (layer.key, layer.query))
    shape = (layer.num_heads, -1, keys.shape[1])
    return keys.view(shape).mT @ queries.view(shape)


def target_value(layer: SelfAttention) -> Float[Tensor, "heads width"]:
    """What each head adds to the prediction for every entry of the token that it attends to."""
    values, output = layer.value.weight.detach().double(), layer.output.weight.detach().double()
    rows = output[-1].view(layer.num_heads, 1, -1)
    return -(rows @ values.view(layer.num_heads, -1, values.shape[1])).squeeze(1)


def share_outside(found: Float[Tensor, "heads *shape"], pattern: Float[Tensor, "*shape"]) -> Float[Tensor, " heads"]:
    """How much of each head's square lies outside the multiples of a pattern: 0 if it is one, 1 if orthogonal.

    >>> import torch
    >>> share_outside(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 0.0]))
    tensor([0.6400])
    """
    flat, shape = found.flatten(1), pattern.flatten()
    along = (flat @ shape).square() / shape.square().sum()
    return 1 - along / flat.square().sum(1)


class Heads(NamedTuple):
    """Key-query matrices over x of the query, what heads add of every entry, and the share each contributes."""

    scores: Float[Tensor, "heads width features"]
    values: Float[Tensor, "heads width"]
    weights: Float[Tensor, " heads"]


def heads_of(layer: SelfAttention) -> Heads:
    """The heads of a layer, each weighed by its value for the target times the size of its scores."""
    scores, values = key_query(layer)[:, :, :-1], target_value(layer)
    weights = values[:, -1].abs() * scores.flatten(1).norm(dim=1)
    return Heads(scores, values, weights / weights.sum())


def off_identity(heads: Heads) -> Float[Tensor, ""]:
    """The share of the key-query matrices that is not c I for x and nothing for y."""
    identity = torch.eye(*heads.scores.shape[1:], dtype=heads.scores.dtype)
    return (heads.weights * share_outside(heads.scores, identity)).sum()


def off_target(heads: Heads) -> Float[Tensor, ""]:
    """The share of what heads add that is not of y."""
    target = torch.eye(heads.values.shape[1], dtype=heads.values.dtype)[-1]
    return (heads.weights * share_outside(heads.values, target)).sum()


def imbalance(heads: Heads) -> Float[Tensor, ""]:
    """How far the heads' values for the target are from summing to zero: |sum of m| over sum of |m|."""
    m = heads.values[:, -1]
    return m.sum().abs() / m.abs().sum()
