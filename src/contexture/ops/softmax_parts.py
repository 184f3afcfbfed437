"""Softmax attention to parts of the past, and joining parts (Milakov & Gimelshein, 2018, arXiv:1805.02867).

With scores c_s and values v_s, a part of the past is known by the three numbers, or vectors,

    m = max_s c_s,    u = sum_s exp(c_s - m),    w = sum_s exp(c_s - m) v_s

and attention to it is w / u. Two parts join to m = max(m_1, m_2), u = sum_i exp(m_i - m) u_i, w likewise. Joining is
associative, so that a past may be cut anywhere and its parts be joined in any order.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class SoftmaxPart(NamedTuple):
    """The largest score and the sum of weights relative to it, [...], and the sum of weighted values, [..., out].

    What has seen nothing yet has -inf, 0 and 0.
    """

    largest: Tensor
    total: Tensor
    summed: Tensor


def no_part(*lead: int, out: int, device: torch.device | str, dtype: torch.dtype) -> SoftmaxPart:
    """Nothing seen yet."""
    zeros = torch.zeros(*lead, out + 1, device=device, dtype=dtype)
    return SoftmaxPart(torch.full_like(zeros[..., 0], -math.inf), zeros[..., 0].clone(), zeros[..., 1:].clone())


def join_parts(one: SoftmaxPart, other: SoftmaxPart) -> SoftmaxPart:
    """Attention to both parts, at least one of which has seen something.

    >>> one, other = (SoftmaxPart(torch.tensor(0.0), torch.tensor(1.0), torch.tensor([v])) for v in (6.0, 2.0))
    >>> joint = join_parts(one, other)
    >>> (joint.summed / joint.total).tolist()
    [4.0]
    """
    largest = torch.maximum(one.largest, other.largest)
    before, after = torch.exp(one.largest - largest), torch.exp(other.largest - largest)
    total = one.total * before + other.total * after
    return SoftmaxPart(largest, total, one.summed * before.unsqueeze(-1) + other.summed * after.unsqueeze(-1))


def join_groups(parts: SoftmaxPart, groups: Int[Tensor, " parts"], num_groups: int) -> SoftmaxPart:
    """Join all parts of one group, for every group; each group needs one at least.

    parts: [parts, ...]; the result: [num_groups, ...].
    """
    index = groups.view(-1, *(1,) * (parts.largest.dim() - 1)).expand_as(parts.largest)
    lowest = parts.largest.new_full((num_groups, *parts.largest.shape[1:]), -math.inf)
    # The maximum only keeps exponentials in range: attention does not depend on it, so it needs no gradient.
    largest = lowest.scatter_reduce(0, index, parts.largest.detach(), "amax")
    factor = torch.exp(parts.largest - largest[groups])
    total = torch.zeros_like(lowest).index_add(0, groups, parts.total * factor)
    weighted = parts.summed * factor.unsqueeze(-1)
    summed = weighted.new_zeros(num_groups, *weighted.shape[1:]).index_add(0, groups, weighted)
    return SoftmaxPart(largest, total, summed)
