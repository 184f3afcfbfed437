"""The kernel of `contexture.ops.delta_rule`."""

from torch import Tensor

from contexture.ops.triton.delta_chunks import delta_triton


def delta_rule_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The WY form without a decay."""
    return delta_triton(q, k, v, beta, initial_state=initial_state, segments=segments)
