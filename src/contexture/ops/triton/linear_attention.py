"""The kernel of `contexture.ops.linear_attention`: one pass over the inputs forward, three backward."""

from torch import Tensor

from contexture.ops.triton.launch import ids
from contexture.ops.triton.scan import Scan


def linear_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The scan without a decay."""
    out, state = Scan.apply(q, k, v, None, initial_state, ids(segments))
    return out, state
