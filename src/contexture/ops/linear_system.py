"""A linear recurrence with one constant matrix, driven by one number at a time (Voelker et al., 2019, the memory of the
Legendre Memory Unit).

    m_t = A m_{t-1} + b x_t

Over a chunk that starts from m:  m_t = sum_{s <= t} A^{t-s} b x_s + A^{t+1} m, one matrix for all chunks, channels and
rows of the batch: it takes a chunk's inputs and the state before it to all of the chunk's states.

x: [batch, time, channels]; A: [order, order]; b: [order]; outputs: m, [batch, time, channels, order]. The state is the
last m, [batch, channels, order], in fp32 at least. A change of segment sets m to zero.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import chunk_size, masks, silence, wide
from contexture.ops.long_convolution import halves, toeplitz
from contexture.ops.segments import padding
from contexture.ops.segments import runs as runs_of

CHUNK = 64


def powers(matrix: Float[Tensor, "order order"], count: int) -> Float[Tensor, "count order order"]:
    """The powers 0, 1, ..., count - 1, in log2(count) products.

    >>> powers(torch.tensor([[2.0]]), 5).flatten().tolist()
    [1.0, 2.0, 4.0, 8.0, 16.0]
    """
    known, square = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device).unsqueeze(0), matrix
    while len(known) < count:
        known = torch.cat((known, known @ square))
        square = square @ square
    return known[:count]


def linear_system_reference(
    x: Tensor, matrix: Tensor, drive: Tensor, *, state: Tensor, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    dtype = x.dtype
    x, matrix, drive = (tensor.to(state.dtype) for tensor in (x, matrix, drive))
    stretch = None if segments is None else runs_of(segments)
    outputs = []
    for t in range(x.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1)
        state = state @ matrix.mT + x[:, t].unsqueeze(-1) * drive
        outputs.append(state)
    return torch.stack(outputs, 1).to(dtype), state


def linear_system_chunked(
    x: Tensor, matrix: Tensor, drive: Tensor, *, state: Tensor, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One matrix product for all chunks, and one small product per chunk between them."""
    time, dtype, order = x.shape[1], x.dtype, len(drive)
    x, matrix, drive = (tensor.to(state.dtype) for tensor in (x, matrix, drive))
    size = chunk_size(time, CHUNK)
    steps = powers(matrix, size + 1)
    response = (steps[:size] @ drive).mT.unsqueeze(0)
    fill = -time % size
    chunks = torch.unflatten(F.pad(x, (0, 0, 0, fill)), 1, (-1, size)).transpose(2, 3)
    written, kept, reads = chunks, None, None
    if segments is not None:
        mask = masks(segments, size, x.dtype)
        written, reads = chunks * mask.writes.squeeze(1).mT, mask.reads.squeeze(1).unsqueeze(3)
        kept = mask.keeps.squeeze(1).unbind(1)
    starts = [state]
    ends = (written @ response[0].flip(1).mT).unbind(1)
    for n, new in enumerate(ends[:-1]):
        state = state @ steps[size].mT
        state = new + (state if kept is None else state * kept[n])
        starts.append(state)
    before = torch.stack(starts, 1)
    if segments is None or reads is None:
        whole = torch.cat((toeplitz(response, size, size, first=0)[0].permute(1, 0, 2), steps[1:]), 2)
        out = torch.cat((chunks, before), 3) @ whole.flatten(0, 1).mT
        out = torch.unflatten(out, 3, (size, order)).transpose(2, 3)
    else:
        recalled = torch.unflatten(before @ steps[1:].flatten(0, 1).mT, 3, (size, order)).transpose(2, 3)
        out = recalled * reads + _inside(response, chunks, segments)
    out = out.flatten(1, 2)[:, :time]
    return out.to(dtype), out[:, -1]


def _inside(response: Tensor, chunks: Tensor, segments: Tensor) -> Tensor:
    """What packed tokens of a chunk leave in each other's states, [batch, chunks, size, channels, order]."""
    batch, count, channels, size = chunks.shape
    fill = count * size - segments.shape[1]
    stretches = torch.unflatten(F.pad(runs_of(segments), (0, fill), value=-1), 1, (count, size))
    rows = chunks.flatten(0, 2).unsqueeze(2).expand(-1, -1, response.shape[1])
    places = stretches.unsqueeze(2).expand(-1, -1, channels, -1).flatten(0, 2)
    return torch.unflatten(halves(response, rows, places), 0, (batch, count, channels)).transpose(2, 3)


def linear_system(
    x: Float[Tensor, "batch time channels"],
    matrix: Float[Tensor, "order order"],
    drive: Float[Tensor, " order"],
    *,
    initial_state: Float[Tensor, "batch channels order"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time channels order"], Float[Tensor, "batch channels order"]]:
    """All states of a linear system under an input, for each channel by itself; returns them and the last.

    >>> x = torch.tensor([8.0, 0.0, 1.0]).view(1, 3, 1)
    >>> linear_system(x, torch.tensor([[0.5]]), torch.ones(1))[0].flatten().tolist()
    [8.0, 4.0, 3.0]
    """
    if segments is not None:
        x = x.masked_fill(padding(segments).unsqueeze(-1), 0.0)
    if initial_state is None:
        initial_state = torch.zeros(x.shape[0], x.shape[2], len(drive), dtype=wide(x.dtype), device=x.device)
    out, state = dispatch.run(OP, x, matrix, drive, keys=x.shape[1], state=initial_state, segments=segments)
    return silence(out, segments), state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    x = torch.randn(batch, time, heads, generator=generator, dtype=torch.float64)
    matrix = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return x, 0.9 * torch.linalg.qr(matrix).Q, torch.randn(dim, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="linear-system",
    paths={"reference": linear_system_reference, "chunked": linear_system_chunked},
    call=linear_system,
    sample=_sample,
)
