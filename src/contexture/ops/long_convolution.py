"""Causal depthwise convolution with a filter as long as the sequence (Hyena; Poli et al., 2023, arXiv:2302.10866).

    y_t = sum_{s <= t} h_{t-s} x_s

x, y: [batch, time, channels]; h: [groups, channels, lags], lags at least as many as there are tokens so far, where the
batch is groups times as large as that of one group, groups outermost. The state is all inputs so far,
[batch, past, channels]. Transforms and sums are in fp32 at least.

Paths: "fft" transforms the whole sequence, padded so that nothing wraps around, in n log n; "products" multiplies by
the filters' Toeplitz matrices, in n^2, for few outputs. Packed sequences go by halves: of a block cut in two, the only
sequence that reaches from the left half into the right one is the one at the cut, so zeros before it on the left and
after it on the right leave a plain convolution of each half-block; all block sizes together cost n log^2 n.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import dispatch
from contexture.ops.chunks import wide
from contexture.ops.segments import padding
from contexture.ops.segments import runs as runs_of

SHORT = 32
"""Half-blocks up to this size are multiplied out; larger ones are transformed."""


def fast_length(length: int) -> int:
    """The smallest of 4, 5, 6, 7, 8 times a power of two that is at least `length`.

    >>> [fast_length(length) for length in (1, 9, 100, 1025)]
    [1, 10, 112, 1280]
    """
    if length <= 8:
        return length
    step = 1 << (length - 1).bit_length() - 3
    return -(-length // step) * step


def toeplitz(h: Float[Tensor, "groups channels lags"], rows: int, columns: int, *, first: int) -> Tensor:
    """The matrix of h[first + row - column], [groups, channels, rows, columns], zero where h has no such lag."""
    lowest, highest = first - columns + 1, first + rows
    needed = F.pad(h[..., max(0, lowest) : highest], (max(0, -lowest), max(0, highest - h.shape[2])))
    return needed.unfold(-1, columns, 1).flip(-1)


def multiply(
    matrix: Float[Tensor, "groups channels rows columns"], x: Float[Tensor, "batch columns channels"]
) -> Float[Tensor, "batch rows channels"]:
    """Every channel's own matrix times that channel's column, for each group's part of the batch."""
    groups = matrix.shape[0]
    columns = torch.unflatten(x, 0, (groups, -1)).permute(0, 3, 2, 1)
    return (matrix @ columns).permute(0, 3, 2, 1).flatten(0, 1)


def transformed(h: Tensor, x: Tensor, *, size: int) -> Tensor:
    """The convolution round a circle of `size` points: [batch, size, channels]."""
    spectrum = torch.fft.rfft(x, n=size, dim=1)
    response = torch.fft.rfft(h, n=size, dim=2).mT
    product = torch.unflatten(spectrum, 0, (h.shape[0], -1)) * response.unsqueeze(1)
    out: Tensor = torch.fft.irfft(product.flatten(0, 1), n=size, dim=1)
    return out


def halves(
    h: Float[Tensor, "groups channels lags"], x: Float[Tensor, "batch time channels"], runs: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time channels"]:
    """The convolution of packed sequences, block size after block size; `runs` number the stretches."""
    time, half = x.shape[1], 1
    total = torch.repeat_interleave(h[:, :, 0], x.shape[0] // h.shape[0], 0).unsqueeze(1) * x
    while half < time:
        fill = -time % (2 * half)
        blocks = torch.unflatten(F.pad(x, (0, 0, 0, fill)), 1, (-1, 2, half))
        places = torch.unflatten(torch.cat((runs, runs[:, -1:].expand(-1, fill)), 1), 1, (-1, 2, half))
        at_cut = (places == places[:, :, :1, -1:]).unsqueeze(-1).to(x.dtype)
        left = (blocks[:, :, 0] * at_cut[:, :, 0]).flatten(0, 1)
        if half <= SHORT:
            right = multiply(toeplitz(h, half, half, first=half), left)
        else:
            right = transformed(h[..., : 2 * half], left, size=2 * half)[:, half:]
        right = torch.unflatten(right, 0, (x.shape[0], -1)) * at_cut[:, :, 1]
        total = total + F.pad(right.unsqueeze(2), (0, 0, 0, 0, 1, 0)).flatten(1, 3)[:, :time]
        half *= 2
    return total


def long_convolution_reference(x: Tensor, h: Tensor, *, before: Tensor, segments: Tensor | None = None) -> Tensor:
    """The definition, one output after another."""
    dtype, past = x.dtype, before.shape[1]
    x, h = torch.cat((before, x), 1).to(wide(dtype)), h.to(wide(dtype)).repeat_interleave(x.shape[0] // h.shape[0], 0)
    stretch = None if segments is None else F.pad(runs_of(segments), (past, 0))
    outputs = []
    for t in range(past, x.shape[1]):
        seen = x[:, : t + 1]
        if stretch is not None:
            seen = seen * (stretch[:, : t + 1] == stretch[:, t : t + 1]).unsqueeze(-1).to(x.dtype)
        outputs.append((seen * h[:, :, : t + 1].flip(2).mT).sum(1))
    return torch.stack(outputs, 1).to(dtype)


def long_convolution_fft(x: Tensor, h: Tensor, *, before: Tensor, segments: Tensor | None = None) -> Tensor:
    """One transform of the whole sequence, or of every block of packed ones."""
    dtype, past = x.dtype, before.shape[1]
    x, h = torch.cat((before, x), 1).to(wide(dtype)), h.to(wide(dtype))
    if segments is not None:
        return halves(h, x, F.pad(runs_of(segments), (past, 0)))[:, past:].to(dtype)
    time = x.shape[1]
    return transformed(h[..., :time], x, size=fast_length(2 * time - 1))[:, past:time].to(dtype)


def long_convolution_products(x: Tensor, h: Tensor, *, before: Tensor, segments: Tensor | None = None) -> Tensor:
    """Toeplitz matrices of the outputs asked for."""
    if segments is not None:
        raise InputError("the path 'products' of long-convolution cannot run on packed sequences: use 'fft'")
    dtype, past = x.dtype, before.shape[1]
    matrix = toeplitz(h.to(wide(dtype)), x.shape[1], past + x.shape[1], first=past)
    return multiply(matrix, torch.cat((before, x), 1).to(wide(dtype))).to(dtype)


def long_convolution(
    x: Float[Tensor, "batch time channels"],
    h: Float[Tensor, "groups channels lags"],
    *,
    initial_state: Float[Tensor, "batch past channels"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch seen channels"]]:
    """Convolve causally with filters of any length; returns the outputs and all inputs. h[..., 0] is the present.

    >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    >>> long_convolution(x, torch.tensor([[[1.0, 10.0, 100.0]]]))[0].flatten().round().tolist()
    [1.0, 12.0, 123.0]
    """
    before = x[:, :0] if initial_state is None else initial_state.to(x.dtype)
    if segments is not None:
        x = x.masked_fill(padding(segments).unsqueeze(-1), 0.0)
    seen = torch.cat((before, x), 1)
    if h.shape[2] < seen.shape[1]:
        raise InputError(f"a filter of {h.shape[2]} lags is too short for {seen.shape[1]} tokens")
    out = dispatch.run(OP, x, h, keys=seen.shape[1], before=before, segments=segments)
    return out, seen


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    channels = heads * dim
    x = torch.randn(batch, time, channels, generator=generator, dtype=torch.float64)
    return x, torch.randn(1, channels, 140, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="long-convolution",
    paths={
        "reference": long_convolution_reference,
        "fft": long_convolution_fft,
        "products": long_convolution_products,
    },
    call=long_convolution,
    sample=_sample,
)
