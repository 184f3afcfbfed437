"""From sums to averages: the values' weighted sum over the sum of the weights.

    o_t = sum_{s <= t} w(q_t, k_s) v_s / (epsilon + sum_{s <= t} w(q_t, k_s))

q, k: [batch, time, heads, ...]; v, o: [batch, time, heads, out]. The weights, none of them negative, are those of an
op that sums values; a column of ones beside the values sums the weights themselves.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.ops.segments import padding


def weighted_average(
    summed: Callable[..., tuple[Tensor, Tensor]],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    initial_state: Tensor | None = None,
    segments: Tensor | None = None,
    epsilon: float = 0.0,
    **settings: Any,
) -> tuple[Tensor, Tensor]:
    """Average values with the weights of the op `summed`; returns the averages and its last state.

    >>> from contexture.ops.linear_attention import linear_attention
    >>> q, v = torch.ones(1, 2, 1, 1), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    >>> weighted_average(linear_attention, q, q, v)[0].flatten().tolist()
    [1.0, 2.0]
    """
    values = F.pad(v, (0, 1), value=1.0)
    sums, state = summed(q, k, values, initial_state=initial_state, segments=segments, **settings)
    total, weight = torch.split(sums, [v.shape[-1], 1], dim=-1)
    if segments is not None:
        weight = weight.masked_fill(padding(segments)[:, :, None, None], 1.0)
    if epsilon:
        # Rounding can bring a sum of squares below zero.
        weight = weight.clamp(min=0.0) + epsilon
    return total / weight, state
