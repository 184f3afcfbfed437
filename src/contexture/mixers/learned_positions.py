"""What mixers with weights for every position share: which positions a call is at, and that they were learned.

x: [batch, time, width]; positions: int64 [rows, time], where rows is 1, or the members of a cohort, while all rows of
the batch stand at the same positions. Not a mixer.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.ops.segments import positions as positions_of


def reach(length: int, max_length: int, *, name: str) -> None:
    """InputError if a sequence is longer than the positions that a mixer learned."""
    if length > max_length:
        raise InputError(
            f"a sequence of {length} tokens is longer than the {max_length} positions that the mixer {name!r} learned: "
            "build it with a larger max_length"
        )


def positions_in(
    x: Float[Tensor, "batch time width"],
    segments: Int[Tensor, "batch time"] | None,
    *,
    members: int | None,
    max_length: int,
    name: str,
) -> Int[Tensor, "rows time"]:
    """The position of every token of a whole sequence; InputError past `max_length`."""
    if segments is None:
        reach(x.shape[1], max_length, name=name)
        return torch.arange(x.shape[1], device=x.device).expand(members or 1, -1)
    positions = positions_of(segments)
    if not torch.compiler.is_compiling():
        reach(int(positions.max()) + 1, max_length, name=name)
    return positions


def positions_from(
    x: Float[Tensor, "batch time width"], first: Int[Tensor, " batch"], *, max_length: int, name: str
) -> Int[Tensor, "batch time"]:
    """The position of every further token after those seen; InputError past `max_length`."""
    if not torch.compiler.is_compiling():
        reach(int(first.max()) + x.shape[1], max_length, name=name)
    return first.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
