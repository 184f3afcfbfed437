"""Cutting time into chunks: what the chunked forms of linear-memory ops share.

A chunked op does the work inside chunks by batched products over [batch * heads * chunks] and passes a state from chunk
to chunk. Chunks are taken apart with `unbind` and put together with `stack`: reading slices in a loop would allocate a
full-length gradient for every slice and make the backward quadratic in length.

time = chunks * size after padding with zeros at the end; runs: int64 [batch, time], see `contexture.ops.segments`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.ops.segments import padding
from contexture.ops.segments import runs as runs_of

PART = 512
"""Tokens of a long sequence that a CPU takes together where an op makes many arrays of the inputs' size."""
State = TypeVar("State")


def runs_on_cpu(x: Tensor) -> bool:
    """Whether a CPU runs this as it is written, so that what it takes at a time should fit its cache."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def too_long(x: Float[Tensor, "batch time *rest"], segments: Tensor | None, part: int | None = None) -> bool:
    """Whether a CPU should take this sequence in parts, which its cache holds; packed ones stay whole."""
    return segments is None and x.shape[1] > (part or PART) and runs_on_cpu(x)


def in_parts(
    mix: Callable[[Sequence[Tensor], State], tuple[Tensor, State]],
    inputs: Sequence[Tensor],
    state: State,
    *,
    part: int | None = None,
) -> tuple[Tensor, State]:
    """Call `mix` on one part of the inputs after another, of PART tokens unless said; inputs: [batch, time or 1, ...].

    >>> x = torch.ones(1, 1100, 1)
    >>> out, total = in_parts(lambda part, before: (part[0] * before, before + part[0].shape[1]), [x], 0)
    >>> out[0, ::512, 0].tolist(), total
    ([0.0, 512.0, 1024.0], 1100)
    """
    time, outputs, part = max(x.shape[1] for x in inputs), [], part or PART
    cut = [torch.split(x, part, 1) if x.shape[1] > 1 else (x,) * -(-time // part) for x in inputs]
    for rows in zip(*cut, strict=True):
        out, state = mix(rows, state)
        outputs.append(out)
    return torch.cat(outputs, 1), state


def chunk_size(time: int, largest: int) -> int:
    """The size that cuts time into the fewest chunks of at most `largest`, as evenly as can be.

    >>> [chunk_size(time, 64) for time in (1, 50, 64, 65, 130)]
    [1, 50, 64, 33, 44]
    """
    chunks = -(-time // largest)
    return -(-time // chunks)


def split(x: Float[Tensor, "batch time heads dim"], size: int) -> Float[Tensor, "batch heads chunks size dim"]:
    """Cut time into chunks, the last one filled up with zeros."""
    if x.shape[1] % size:  # padding by nothing would copy
        x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % size))
    return torch.unflatten(x, 1, (-1, size)).permute(0, 3, 1, 2, 4).contiguous()


def join(x: Float[Tensor, "batch heads chunks size dim"], time: int) -> Float[Tensor, "batch time heads dim"]:
    """Undo `split`."""
    return x.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :time]


def add_product(
    added: Float[Tensor, "*lead rows out"],
    left: Float[Tensor, "*lead rows inner"],
    right: Float[Tensor, "*lead inner out"],
) -> Float[Tensor, "*lead rows out"]:
    """added + left @ right in one pass."""
    return torch.baddbmm(added.flatten(0, -3), left.flatten(0, -3), right.flatten(0, -3)).view(added.shape)


@dataclass(frozen=True, slots=True)
class Masks:
    """What packed sequences forbid, as factors of 0 and 1 in the inputs' dtype.

    within: [batch, 1, chunks, size, size], one where row and column belong to the same stretch;
    reads: [batch, 1, chunks, size, 1], one where a position continues the stretch that the chunk before ended with;
    writes: the same shape, one where a position belongs to the stretch that its own chunk ends with;
    keeps: [batch, 1, chunks, 1, 1], one where a chunk ends in the stretch that the chunk before ended with.
    """

    within: Tensor
    reads: Tensor
    writes: Tensor
    keeps: Tensor


def masks(segments: Tensor, size: int, dtype: torch.dtype) -> Masks:
    """The masks of packed sequences cut into chunks; an initial state belongs to the first stretch."""
    runs = runs_of(segments)
    runs = torch.cat((runs, runs[:, -1:].expand(-1, -runs.shape[1] % size)), 1)
    runs = torch.unflatten(runs, 1, (-1, size)).unsqueeze(1)
    last = runs[..., -1:]
    before = F.pad(last[:, :, :-1], (0, 0, 1, 0))
    return Masks(
        within=(runs.unsqueeze(-1) == runs.unsqueeze(-2)).to(dtype),
        reads=(runs == before).unsqueeze(-1).to(dtype),
        writes=(runs == last).unsqueeze(-1).to(dtype),
        keeps=(last == before).unsqueeze(-1).to(dtype),
    )


def silence(x: Float[Tensor, "batch time heads dim"], segments: Tensor | None) -> Float[Tensor, "batch time heads dim"]:
    """Zero at padding."""
    return x if segments is None else x.masked_fill(padding(segments)[:, :, None, None], 0.0)


def no_memory(
    k: Float[Tensor, "batch time heads dim"], v: Float[Tensor, "batch time heads out"]
) -> Float[Tensor, "batch heads dim out"]:
    """A memory that holds nothing."""
    return torch.zeros(k.shape[0], *k.shape[2:], v.shape[3], dtype=wide(v.dtype), device=v.device)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which states and solves are held: fp32, or fp64 for fp64 inputs."""
    return torch.promote_types(dtype, torch.float32)
