"""Causal depthwise convolution with a short kernel, one filter per channel.

    y_t = sum_{i < taps} w_i x_{t - taps + 1 + i}

x, y: [batch, time, channels]; w: [groups, channels, taps], where the batch is groups times as large as that of one
group (groups outermost); the state is the last taps - 1 inputs, [batch, taps - 1, channels], zeros at the start.
A position sees nothing of another segment, and padding sees nothing.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import dispatch
from contexture.ops.segments import padding, runs


def _weighted(weight: Tensor, x: Tensor) -> Tensor:
    """w_i x, where every group of the batch has its own w_i: [groups, channels] and [batch, time, channels]."""
    if weight.shape[0] == 1:
        return x * weight
    return (torch.unflatten(x, 0, (weight.shape[0], -1)) * weight[:, None, None]).flatten(0, 1)


def short_convolution_reference(x: Tensor, weight: Tensor, *, buffer: Tensor, segments: Tensor | None) -> Tensor:
    """The definition, one step after another."""
    taps, dtype = weight.shape[2], x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    x, weight = torch.cat((buffer, x), 1).to(wide), weight.to(wide)
    stretch = None if segments is None else F.pad(runs(segments), (taps - 1, 0))
    outputs = []
    for t in range(taps - 1, x.shape[1]):
        total = torch.zeros_like(x[:, t : t + 1])
        for i, s in enumerate(range(t - taps + 1, t + 1)):
            seen = x[:, s : s + 1]
            if stretch is not None:
                seen = seen * (stretch[:, s] == stretch[:, t]).to(wide).view(-1, 1, 1)
            total = total + _weighted(weight[..., i], seen)
        outputs.append(total)
    return torch.cat(outputs, 1).to(dtype)


def short_convolution_taps(x: Tensor, weight: Tensor, *, buffer: Tensor, segments: Tensor | None) -> Tensor:
    """One product per tap over the whole sequence."""
    taps, time = weight.shape[2], x.shape[1]
    x = torch.cat((buffer, x), 1)
    stretch = None if segments is None else F.pad(runs(segments), (taps - 1, 0))
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for i, tap in enumerate(weight.to(x.dtype).unbind(2)):
        seen = x[:, i : i + time]
        if stretch is not None:
            same = stretch[:, i : i + time] == stretch[:, taps - 1 :]
            seen = seen * same.unsqueeze(-1).to(x.dtype)
        total = total + _weighted(tap, seen)
    return total


def short_convolution_fused(x: Tensor, weight: Tensor, *, buffer: Tensor, segments: Tensor | None) -> Tensor:
    """torch's grouped convolution over an image of height one whose channels lie innermost, as ours do."""
    if segments is not None:
        raise InputError("the path 'fused' of short-convolution cannot run on packed sequences: use 'taps'")
    groups, channels, taps = weight.shape
    x = torch.cat((buffer, x), 1)
    if groups > 1:
        x = torch.unflatten(x, 0, (groups, -1)).permute(1, 2, 0, 3).flatten(2)
    image = x.mT.unsqueeze(2)
    filters = weight.to(x.dtype).reshape(groups * channels, 1, 1, taps)
    out = F.conv2d(image, filters, groups=groups * channels).squeeze(2).mT
    if groups > 1:
        out = torch.unflatten(out, 2, (groups, channels)).permute(2, 0, 1, 3).flatten(0, 1)
    return out


def short_convolution(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "groups channels taps"],
    *,
    initial_state: Float[Tensor, "batch past channels"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch past channels"]]:
    """Convolve causally; returns the outputs and the last taps - 1 inputs.

    >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    >>> short_convolution(x, torch.tensor([[[10.0, 1.0]]]))[0].flatten().tolist()
    [1.0, 12.0, 23.0]
    """
    past = weight.shape[2] - 1
    if initial_state is None:
        initial_state = torch.zeros(x.shape[0], past, x.shape[2], dtype=x.dtype, device=x.device)
    if segments is not None:
        x = x.masked_fill(padding(segments).unsqueeze(-1), 0.0)
    buffer = initial_state.to(x.dtype)
    out = dispatch.run(OP, x, weight, keys=past + 1, buffer=buffer, segments=segments)
    seen = torch.cat((buffer, x), 1)
    if segments is not None:
        stretch = F.pad(runs(segments), (past, 0))
        seen = seen * (stretch == stretch[:, -1:]).unsqueeze(-1).to(x.dtype)
    return out, seen[:, seen.shape[1] - past :]


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    channels = heads * dim
    x = torch.randn(batch, time, channels, generator=generator, dtype=torch.float64)
    return x, torch.randn(1, channels, 4, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="short-convolution",
    paths={
        "reference": short_convolution_reference,
        "taps": short_convolution_taps,
        "fused": short_convolution_fused,
    },
    call=short_convolution,
    sample=_sample,
)
