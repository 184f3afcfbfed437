"""The kernel of `contexture.ops.linear_attention`: one pass over the inputs forward, three backward."""

from torch import Tensor

from contexture.ops.triton.launch import handed_in, ids
from contexture.ops.triton.scan import Scan
from contexture.ops.triton.steps import memory_step, single


def linear_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scan without a decay."""
    if single(q, k, v, initial_state, segments=segments):
        return memory_step(q, k, v, initial_state)
    first = None if initial_state is None else handed_in(initial_state)
    out, state = Scan.apply(q, k, v, None, first, ids(segments))
    return out, state
