"""Softmax attention as explicit batched products, for sets of any order (Vaswani et al. 2017).

    o_i = sum_j softmax_j(scale q_i . k_j) v_j

Written as two batched products because, on a CPU, the backward of fused attention in bfloat16 costs several times more.

Legend: S = sets, Q = queries, C = members attended to, H = heads, W = width.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_LOGITS = 2**24
"""How many logits may stand in memory at once where no gradient is asked for (64 MiB in fp32)."""


def split_heads(x: Float[Tensor, "sets members width"], num_heads: int) -> Float[Tensor, "setsheads members dim"]:
    """The heads of each set as sets of their own."""
    sets, members, width = x.shape
    return (
        x.reshape(sets, members, num_heads, width // num_heads).transpose(1, 2).reshape(-1, members, width // num_heads)
    )


def join_heads(x: Float[Tensor, "setsheads members dim"], num_heads: int) -> Float[Tensor, "sets members width"]:
    """The inverse of `split_heads`."""
    _, members, dim = x.shape
    return x.reshape(-1, num_heads, members, dim).transpose(1, 2).reshape(-1, members, num_heads * dim)


def set_attention(
    q: Float[Tensor, "sets queries dim"],
    k: Float[Tensor, "sets members dim"],
    v: Float[Tensor, "sets members dim"],
    *,
    scale: float,
) -> Float[Tensor, "sets queries dim"]:
    """Attention of every query to every member of its set.

    >>> q, v = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 3.0], [3.0, 5.0]]])
    >>> set_attention(q, v, v, scale=1.0).tolist()
    [[[2.0, 4.0]]]
    """
    if not torch.is_grad_enabled() and q.shape[0] * q.shape[1] * k.shape[1] > LARGEST_LOGITS:
        return _in_slices(q, k, v, scale=scale)
    logits = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(logits.softmax(dim=-1), v)


def _in_slices(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """The same, a few sets or a few queries at a time, so that the logits never take much memory."""
    if q.shape[0] > 1:
        size = max(1, LARGEST_LOGITS // (q.shape[1] * k.shape[1]))
        starts = range(0, q.shape[0], size)
        parts = [slice(start, start + size) for start in starts]
        return torch.cat([set_attention(q[part], k[part], v[part], scale=scale) for part in parts])
    size = max(1, LARGEST_LOGITS // k.shape[1])
    return torch.cat([set_attention(part, k, v, scale=scale) for part in torch.split(q, size, dim=1)], dim=1)
