"""A linear recurrence with constant complex factors, several to a channel (S4D; Gu et al., 2022, arXiv:2206.11893).

    z_t = exp(g + i w) z_{t-1} + x_t,    y_t = Re sum over modes of (r + i r') z_t

Over a chunk of size C that starts from z, with the kernel K_l = Re sum over modes of (r + i r') exp(l (g + i w)),

    y_t = sum_{s <= t} K_{t-s} x_s + Re sum over modes of (r + i r') exp((t + 1)(g + i w)) z,
    z <- exp(C (g + i w)) z + sum_s exp((C - 1 - s)(g + i w)) x_s:

three matrices for each channel, the same for all chunks.

x, y: [batch, time, channels]; g (at most 0), w: [groups, channels, modes]; r, r': the two entries of
read [groups, channels, modes, 2], where the batch is groups times as large as that of one group, groups outermost.
The state is z, [batch, modes, channels, 2], in fp32 at least. A change of segment sets z to zero.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import chunk_size, masks, wide
from contexture.ops.long_convolution import halves, multiply, toeplitz
from contexture.ops.segments import padding
from contexture.ops.segments import runs as runs_of

CHUNK = 64


def _no_modes(x: Tensor, modes: int) -> Tensor:
    """The state before any token."""
    return torch.zeros(x.shape[0], modes, x.shape[2], 2, dtype=wide(x.dtype), device=x.device)


def _per_row(x: Tensor, batch: int) -> Tensor:
    """[groups, channels, modes] as [batch, modes, channels]."""
    return x.repeat_interleave(batch // x.shape[0], 0).mT


def diagonal_recurrence_reference(
    x: Tensor, log_decay: Tensor, angle: Tensor, read: Tensor, *, state: Tensor, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    dtype, held = x.dtype, state.dtype
    x, log_decay, angle, read = (tensor.to(held) for tensor in (x, log_decay, angle, read))
    factor = torch.polar(_per_row(log_decay, x.shape[0]).exp(), _per_row(angle, x.shape[0]))
    weight = _per_row(torch.view_as_complex(read.contiguous()), x.shape[0])
    stretch = None if segments is None else runs_of(segments)
    z, outputs = torch.view_as_complex(state.contiguous()), []
    for t in range(x.shape[1]):
        if stretch is not None and t > 0:
            z = z * (stretch[:, t] == stretch[:, t - 1]).to(held).view(-1, 1, 1)
        z = factor * z + x[:, t : t + 1]
        outputs.append((weight * z).real.sum(1))
    return torch.stack(outputs, 1).to(dtype), torch.view_as_real(z)


def diagonal_recurrence_chunked(
    x: Tensor, log_decay: Tensor, angle: Tensor, read: Tensor, *, state: Tensor, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Three matrix products per channel, and one complex product per chunk between them."""
    (batch, time, _), dtype = x.shape, x.dtype
    x, log_decay, angle, read = (tensor.to(state.dtype) for tensor in (x, log_decay, angle, read))
    size = chunk_size(time, CHUNK)
    steps = torch.arange(size + 1, device=x.device, dtype=x.dtype)
    powers = torch.polar((log_decay.unsqueeze(2) * steps.unsqueeze(1)).exp(), angle.unsqueeze(2) * steps.unsqueeze(1))
    weighted = powers * torch.view_as_complex(read.contiguous()).unsqueeze(2)
    kernel = weighted[:, :, :size].real.sum(3)
    reader = torch.cat((weighted[:, :, 1:].real, -weighted[:, :, 1:].imag), 3)
    writer = torch.cat((powers.real, powers.imag), 3)[:, :, :size].flip(2).mT
    fill = -time % size
    chunks = torch.unflatten(F.pad(x, (0, 0, 0, fill)), 1, (-1, size))
    if segments is None:
        inside = multiply(toeplitz(kernel, size, size, first=0), chunks.flatten(0, 1))
        written, kept, reads = chunks, None, None
    else:
        mask = masks(segments, size, x.dtype)
        stretches = F.pad(runs_of(segments), (0, fill), value=-1)
        inside = halves(kernel, chunks.flatten(0, 1), torch.unflatten(stretches, 1, (-1, size)).flatten(0, 1))
        written, kept, reads = chunks * mask.writes.squeeze(1), mask.keeps.squeeze(1).unbind(1), mask.reads.squeeze(1)
    starts, state = _carry(written, writer, powers, state=state, kept=kept, fill=fill)
    recalled = torch.unflatten(multiply(reader, starts.flatten(0, 1)), 0, (batch, -1))
    out = torch.unflatten(inside, 0, (batch, -1)) + (recalled if reads is None else recalled * reads)
    return out.flatten(1, 2)[:, :time].to(dtype), state


def _carry(
    written: Tensor,
    writer: Tensor,
    powers: Tensor,
    *,
    state: Tensor,
    kept: tuple[Tensor, ...] | None,
    fill: int,
) -> tuple[Tensor, Tensor]:
    """The state before every chunk, [batch, chunks, 2 * modes, channels], and the last one.

    The last chunk is `fill` tokens short, so its writer is read from that column on.
    """
    batch, count, size, _ = written.shape
    full, last = torch.split(written, [count - 1, 1], 1)
    short = multiply(writer[..., fill:], last[:, 0, : size - fill]).unsqueeze(1)
    added = torch.cat((torch.unflatten(multiply(writer, full.flatten(0, 1)), 0, (batch, -1)), short), 1)
    added = torch.complex(*added.chunk(2, 2))
    factors = [_per_row(powers[:, :, steps], batch) for steps in (size, size - fill)]
    z, starts = torch.view_as_complex(state.contiguous()), []
    for n, new in enumerate(added.unbind(1)):
        starts.append(z)
        z = factors[n == count - 1] * z
        z = new + (z if kept is None else z * kept[n])
    before = torch.stack(starts, 1)
    return torch.cat((before.real, before.imag), 2), torch.view_as_real(z)


def diagonal_recurrence(
    x: Float[Tensor, "batch time channels"],
    log_decay: Float[Tensor, "groups channels modes"],
    angle: Float[Tensor, "groups channels modes"],
    read: Float[Tensor, "groups channels modes 2"],
    *,
    initial_state: Float[Tensor, "batch modes channels 2"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch modes channels 2"]]:
    """Read a sum of decaying oscillations that every input starts anew; returns outputs and the last state.

    >>> x, one = torch.tensor([8.0, 0.0, 0.0]).view(1, 3, 1), torch.ones(1, 1, 1)
    >>> diagonal_recurrence(x, (0.5 * one).log(), 0 * one, torch.tensor([1.0, 0.0]).view(1, 1, 1, 2))[0].flatten()
    tensor([8., 4., 2.])
    """
    if segments is not None:
        x = x.masked_fill(padding(segments).unsqueeze(-1), 0.0)
    state = _no_modes(x, log_decay.shape[2]) if initial_state is None else initial_state
    out, state = dispatch.run(OP, x, log_decay, angle, read, keys=x.shape[1], state=state, segments=segments)
    if segments is not None:
        out = out.masked_fill(padding(segments).unsqueeze(-1), 0.0)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    channels, modes = heads * dim, 3
    x = torch.randn(batch, time, channels, generator=generator, dtype=torch.float64)
    log_decay = -torch.rand(1, channels, modes, generator=generator, dtype=torch.float64)
    angle = 3 * torch.rand(1, channels, modes, generator=generator, dtype=torch.float64)
    return x, log_decay, angle, torch.randn(1, channels, modes, 2, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="diagonal-recurrence",
    paths={"reference": diagonal_recurrence_reference, "chunked": diagonal_recurrence_chunked},
    call=diagonal_recurrence,
    sample=_sample,
)
