"""Where the inner gradients of a memory are taken: every sequence is cut into chunks, each with an anchor.

The chunk is part of such a mechanism: its gradients are taken at the anchor, the memory before the chunk's first token.
A sequence may begin in the middle of a chunk, after `offset` of its tokens were seen by an earlier call.

offset: int64 [batch]; places: int64 [batch, time], each token's place in its chunk.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from contexture.ops.segments import positions, runs


def places(
    time: int, chunk: int, offset: Int[Tensor, " batch"], segments: Int[Tensor, "batch time"] | None = None
) -> Int[Tensor, "batch time"]:
    """The place of every token in its chunk; the offset belongs to the first segment.

    >>> places(5, 2, torch.tensor([0, 1])).tolist()
    [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1]]
    """
    if segments is None:
        return (offset.unsqueeze(1) + torch.arange(time, device=offset.device)) % chunk
    return (positions(segments) + offset.unsqueeze(1) * (runs(segments) == 0)) % chunk


def no_offset(batch: int, *, device: torch.device | str) -> Int[Tensor, " batch"]:
    """Every sequence at the start of a chunk."""
    return torch.zeros(batch, dtype=torch.int64, device=device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Time cut into chunks, each with the `past` tokens before it.

    real: bool [batch, chunks, past + slots], where a window holds a token of the chunk, or an earlier one of its
    sequence; begins: bool [batch, chunks], where a chunk is the first of a sequence that is not the first of its row;
    complete: bool [batch, chunks], where no token of the chunk is still to come; start: int64 [batch, chunks], the time
    at which a chunk starts; target: int64 [batch, time], chunk * slots + place. start and target are None where the
    cut is the same for all rows. An axis of batch may be 1.
    """

    time: int
    slots: int
    past: int
    real: Tensor
    begins: Tensor
    complete: Tensor
    start: Tensor | None = None
    target: Tensor | None = None

    def cut(self, x: Tensor) -> Tensor:
        """[batch, past + time, ...] to [batch, chunks, past + slots, ...]."""
        return self._cut(x, self.past + self.slots)

    def own(self, x: Tensor) -> Tensor:
        """[batch, time, ...] to [batch, chunks, slots, ...]: the tokens of the chunks alone."""
        return self._cut(x, self.slots)

    def paste(self, x: Tensor) -> Tensor:
        """[batch, chunks, slots, ...] to [batch, time, ...]."""
        x = x.flatten(1, 2)
        return x[:, : self.time] if self.target is None else _take(x, self.target)

    def _cut(self, x: Tensor, size: int) -> Tensor:
        if self.start is not None:
            index = self.start.unsqueeze(-1) + torch.arange(size, device=x.device)
            return _take(x, index.clamp(max=x.shape[1] - 1))
        x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, -self.time % self.slots))
        return x.unfold(1, size, self.slots).movedim(-1, 2)


def even_windows(time: int, chunk: int, past: int, *, device: torch.device | str) -> Windows:
    """Whole chunks from the start of every row."""
    step = torch.arange(-past, chunk, device=device)
    start = torch.arange(0, time, chunk, device=device).unsqueeze(-1)
    real = (start + step >= 0) & (start + step < time)
    none = torch.zeros(1, len(start), dtype=torch.bool, device=device)
    complete = (start + chunk <= time).view(1, -1)
    return Windows(time=time, slots=chunk, past=past, real=real.unsqueeze(0), begins=none, complete=complete)


def windows(
    time: int, chunk: int, past: int, offset: Int[Tensor, " batch"], segments: Int[Tensor, "batch time"] | None
) -> Windows:
    """Chunks that start anew with every segment, the first of them with what is left of a chunk begun before.

    How many there are depends on the segments, and how many tokens the longest has; a compiled graph, which cannot
    know, has room for a chunk a token.
    """
    device = offset.device
    place = places(time, chunk, offset, segments)
    stretch = torch.zeros_like(place) if segments is None else runs(segments)
    changes = F.pad(stretch[:, 1:] != stretch[:, :-1], (1, 0))
    starts = (place == 0) | changes
    starts = torch.cat((torch.ones_like(starts[:, :1]), starts[:, 1:]), 1)
    number = starts.cumsum(1) - 1
    compiling = torch.compiler.is_compiling()
    chunks = time if compiling else int(number.max()) + 1
    order = torch.arange(chunks + 1, device=device).expand(len(number), -1).contiguous()
    edges = torch.searchsorted(number, order)
    start, count = edges[:, :-1], edges[:, 1:] - edges[:, :-1]
    slots = min(chunk, time) if compiling else int(count.max())
    first, some = start.clamp(max=time - 1), count > 0
    step = torch.arange(-past, slots, device=device)
    at = start.unsqueeze(-1) + step
    begun = torch.where(changes, torch.arange(time, device=device), -past).cummax(1).values.gather(1, first)
    real = (step < count.unsqueeze(-1)) & (at >= begun.unsqueeze(-1)) & some.unsqueeze(-1)
    last = (start + count - 1).clamp(0, time - 1)
    return Windows(
        time=time,
        slots=slots,
        past=past,
        real=real,
        begins=changes.gather(1, first) & some,
        complete=(place.gather(1, last) == chunk - 1) & some,
        start=start,
        target=number * slots + torch.arange(time, device=device) - start.gather(1, number),
    )


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of the second axis, chosen for each entry of the first."""
    rows = torch.arange(x.shape[0], device=x.device).view(-1, *(1,) * (index.dim() - 1))
    return x[rows, index]
