"""The kernel of `contexture.ops.omega`: see `contexture.ops.triton.learned_matrix`."""

import torch
from torch import Tensor

from contexture.ops.anchors import even_windows, places, windows
from contexture.ops.chunks import silence
from contexture.ops.inner_steps import Step, stacked_weights
from contexture.ops.learned_memory import Learned, _begin, _lengthened, _past
from contexture.ops.memories import Memory, Parts
from contexture.ops.triton.learned_matrix import Memories, learned_matrix


def omega_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    gamma: Tensor,
    log_keep: Tensor,
    *,
    log_eta: Tensor | None,
    fresh: Parts,
    memory: Memory,
    step: Step,
    chunk: int,
    window: int,
    initial_state: Learned | None,
    segments: Tensor | None,
) -> tuple[Tensor, Learned]:
    """Descent by a matrix that starts from zero, without momentum."""
    assert log_eta is None
    assert step == "descent"
    time, device = q.shape[1], q.device
    fresh = tuple(part.float() for part in fresh)
    state = _begin(q, v, log_eta, fresh, window, initial_state)
    if initial_state is None and segments is None:
        cut = even_windows(time, chunk, window - 1, device=device)
    else:
        cut = windows(time, chunk, window - 1, state.offset, segments)
    keys, values, gammas = _lengthened(state, k, v, gamma.float(), segments)
    weights = stacked_weights(cut, theta.float(), gammas.squeeze(-1), log_keep.float(), None)
    (matrix,), (anchor,) = state.memory, state.anchor
    anchor = torch.where((state.offset == 0).view(-1, 1, 1, 1), matrix, anchor)
    before = Memories(matrix, torch.zeros_like(matrix), anchor)
    rows = keys.to(v.dtype), values.to(v.dtype)
    out, last = learned_matrix(q, *rows, weights, cut, before, moving=False, squared=memory.loss == "squared")
    past = _past(keys, values, gammas, window, segments)
    after = (places(time, chunk, state.offset, segments)[:, -1] + 1) % chunk
    return silence(out, segments), Learned((last.memory,), (), (last.anchor,), *past, after)
