"""The kernel of `contexture.ops.titans`: see `contexture.ops.triton.learned_matrix`."""

import torch
from torch import Tensor

from contexture.ops.anchors import places, windows
from contexture.ops.chunks import silence
from contexture.ops.inner_steps import stacked_weights
from contexture.ops.titans import MatrixMemory
from contexture.ops.triton.learned_matrix import Memories, learned_matrix


def titans_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    log_eta: Tensor,
    log_keep: Tensor,
    *,
    chunk: int,
    initial_state: MatrixMemory,
    segments: Tensor | None = None,
) -> tuple[Tensor, MatrixMemory]:
    """Descent with momentum, a window of one token."""
    time, (matrix, momentum, anchor, offset) = q.shape[1], initial_state
    cut = windows(time, chunk, 0, offset, segments)
    gamma = silence(torch.ones_like(theta, dtype=torch.float32).unsqueeze(-1), segments).squeeze(-1)
    weights = stacked_weights(cut, theta.float(), gamma, log_keep.float(), log_eta.float())
    anchor = torch.where((offset == 0).view(-1, 1, 1, 1), matrix, anchor)
    before = Memories(matrix, momentum, anchor)
    out, last = learned_matrix(q, k, v, weights, cut, before, moving=True, squared=True)
    after = (places(time, chunk, offset, segments)[:, -1] + 1) % chunk
    return silence(out, segments), MatrixMemory(*last, after)
