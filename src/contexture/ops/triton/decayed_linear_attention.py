"""The kernel of `contexture.ops.decayed_linear_attention`: retention, Mamba-2's SSD and their kin."""

import torch
from torch import Tensor

from contexture.ops.triton.launch import handed_in, ids
from contexture.ops.triton.scan import Scan
from contexture.ops.triton.steps import memory_step, single


def decayed_linear_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scan with one log-decay per head and step."""
    if single(q, k, v, g, initial_state, segments=segments):
        return memory_step(q, k, v, initial_state, log_decay=g)
    first = None if initial_state is None else handed_in(initial_state)
    out, state = Scan.apply(q, k, v, g.to(torch.float32), first, ids(segments))
    return out, state
