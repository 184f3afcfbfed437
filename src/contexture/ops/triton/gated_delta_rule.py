"""The kernel of `contexture.ops.gated_delta_rule`."""

from torch import Tensor

from contexture.ops.triton.delta_chunks import delta_triton
from contexture.ops.triton.steps import memory_step, single


def gated_delta_rule_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    *,
    initial_state: Tensor | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The WY form with one log-decay per head and step."""
    if single(q, k, v, beta, g, initial_state, segments=segments):
        return memory_step(q, k, v, initial_state, log_decay=g, beta=beta)
    return delta_triton(q, k, v, beta, g, initial_state=initial_state, segments=segments)
