"""The kernel of `contexture.ops.delta_rule`."""

from torch import Tensor

from contexture.ops.triton.delta_chunks import delta_triton
from contexture.ops.triton.steps import memory_step, single


def delta_rule_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The WY form without a decay."""
    if single(q, k, v, beta, initial_state, segments=segments):
        return memory_step(q, k, v, initial_state, beta=beta)
    return delta_triton(q, k, v, beta, initial_state=initial_state, segments=segments)
