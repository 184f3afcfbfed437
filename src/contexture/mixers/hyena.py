"""The Hyena operator of order two (Poli et al., 2023, arXiv:2302.10866).

    q, k, v = split(conv(x W));    u = k * v;    y = (q * (h * u + d u)) W_o

where conv is a depthwise convolution of a few taps, the inner star a convolution over the whole past, and h the value
of a small network at every lag, under a window that decays exponentially:

    h_l = w_l MLP(l / max_length),    w_l = sqrt(2 a / max_length) exp(-a l / max_length)

with sines in the network, a rate a per channel, and the features t, cos(2 pi j t), sin(2 pi j t) of t = l / max_length.
A lag's weight does not depend on how long the sequence is, and lags past max_length have one too. The window's factor
gives filters of about unit energy at the start. x, y: [batch, time, width]; h: [groups, width, lags]. The state is
every u so far and the last inputs of the short convolution. Heads change nothing.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.conv import Conv
from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.mixers.heads import head_size
from contexture.ops.long_convolution import long_convolution
from contexture.protocols import MixerCard

SLOWEST, FASTEST = math.log(100) / 1.5, math.log(100) / 0.3
"""The rates of decay lie between these: a hundredth is left after 1.5 and after 0.3 of max_length."""


class ImplicitFilter(nn.Module):
    """One filter per channel, as long as is asked for."""

    def __init__(
        self, width: int, *, hidden: int, bands: int, frequency: float, max_length: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.width, self.bands, self.max_length = width, bands, max_length
        self.frequency = Gain(hidden, initial=frequency, device=generator.device)
        self.layers = nn.ModuleList(
            Linear(size, hidden, generator=generator) for size in (1 + 2 * bands, hidden, hidden)
        )
        self.output = Linear(hidden, width, generator=generator, bias=False, gain=2.0)

    def forward(self, lags: int) -> Float[Tensor, "groups width lags"]:
        """The weights of the lags 0, 1, ..., lags - 1."""
        weight, members = self.output.weight, self.output.members
        t = torch.arange(lags, device=weight.device, dtype=weight.dtype).unsqueeze(1) / self.max_length
        bands = 2 * math.pi * t * torch.arange(1, self.bands + 1, device=t.device, dtype=t.dtype)
        hidden = torch.cat((t, bands.cos(), bands.sin()), 1).expand(members or 1, -1, -1)
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden)
            hidden = torch.sin(self.frequency(hidden) if number == 0 else hidden)
        rates = torch.linspace(SLOWEST, FASTEST, self.width, device=t.device, dtype=t.dtype)
        window = (2 * rates / self.max_length).sqrt() * torch.exp(-rates * t)
        filters: Tensor = self.output(hidden) * window
        return filters.mT


class HyenaState(NamedTuple):
    """Every u so far, [batch, past, width], and the short convolution's last inputs, [batch, taps - 1, 3 * width]."""

    past: Tensor
    inputs: Tensor


class Hyena(nn.Module):
    """A convolution as long as the past, between two gates.

    `filter_width`, `bands` and `frequency` shape the network that gives the filters; `frequency` is the factor inside
    its first sines at the start. InputError if the width cannot be split into `num_heads`.
    """

    card = MixerCard(
        name="hyena",
        summary="A convolution over the whole past, whose filter a small network draws, between two gates.",
        paper="Poli et al., Hyena Hierarchy, arXiv:2302.10866",
        year=2023,
        state="grows",
        cost="n log n",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        max_length: int = 1024,
        short_convolution: int = 3,
        filter_width: int = 32,
        bands: int = 8,
        frequency: float = 10.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        head_size(width, num_heads)
        self.width = width
        self.projection = Linear(width, 3 * width, generator=generator)
        self.conv = Conv(3 * width, taps=short_convolution, generator=generator)
        self.filter = ImplicitFilter(
            width, hidden=filter_width, bands=bands, frequency=frequency, max_length=max_length, generator=generator
        )
        self.skip = Gain(width, device=generator.device)
        self.output = Linear(width, width, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> HyenaState:
        """No inputs yet."""
        past = torch.zeros(batch, 0, self.width, device=device, dtype=dtype)
        return HyenaState(past, self.conv.init_state(batch, device=device, dtype=dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: HyenaState
    ) -> tuple[Float[Tensor, "batch time width"], HyenaState]:
        """Mix further tokens with every input so far."""
        projected, inputs = self.conv.stream(self.projection(x), state.inputs)
        out, past = self._mix(projected, past=state.past)
        return out, HyenaState(past, inputs)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence; packed ones take n log^2 n."""
        return self._mix(self.conv(self.projection(x), segments=segments), segments=segments)[0]

    def _mix(
        self, projected: Tensor, *, past: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        q, k, v = projected.chunk(3, -1)
        u = k * v
        lags = u.shape[1] + (0 if past is None else past.shape[1])
        mixed, past = long_convolution(u, self.filter(lags), initial_state=past, segments=segments)
        return self.output(q * (mixed + self.skip(u))), past
