"""Mamba, a selective state space for every channel (S6; Gu & Dao, 2023, arXiv:2312.00752).

    u, z = x W_in;    u <- silu(conv(u));    r, B, C = u W_x;    dt = softplus(r W_dt + b_dt);    A = -exp(a)
    h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t;    y_t = ((C_t . h_t + D u_t) * silu(z_t)) W_o

u has `expand` times the width; r has the low rank width / 16; a, one row of `state_size` numbers per channel, starts at
log(1, 2, ..., state_size), as in S4D-real; b_dt starts so that dt is log-uniform in [0.001, 0.1]. The convolution has
no offset.
x: [batch, time, width]; u, z, dt: [batch, time, channels]; B, C: [batch, time, state_size]. The state is
[batch, channels, state_size] in fp32, and the last inputs of the convolution. There are no heads: `num_heads` has no
effect here.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.conv import Conv
from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.mixers.steps import start_steps
from contexture.ops.chunks import wide
from contexture.ops.selective_scan import selective_scan
from contexture.protocols import MixerCard


class MambaState(NamedTuple):
    """The channels' states, [batch, channels, state_size] in fp32, and the convolution's last inputs."""

    memory: Tensor
    inputs: Tensor


class Mamba(nn.Module):
    """A state space per channel whose input, output and step size follow the input."""

    card = MixerCard(
        name="mamba",
        summary="A small state space for every channel that decides from the input what to keep.",
        paper="Gu & Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752",
        year=2023,
        state="constant",
        cost="linear",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        state_size: int = 16,
        expand: int = 2,
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.inner, self.state_size, self.rank = expand * width, state_size, -(-width // 16)
        self.projection = Linear(width, 2 * self.inner, generator=generator, bias=False)
        self.conv = Conv(self.inner, taps=short_convolution, generator=generator)
        self.select = Linear(self.inner, self.rank + 2 * state_size, generator=generator, bias=False)
        self.steps = start_steps(Linear(self.rank, self.inner, generator=generator), generator=generator)
        self.log_rate = Gain(self.inner * state_size, device=generator.device)
        with torch.no_grad():
            rates = torch.arange(1.0, state_size + 1, device=generator.device)
            self.log_rate.weight.copy_(rates.log().repeat(self.inner))
        self.skip = Gain(self.inner, device=generator.device)
        self.output = Linear(self.inner, width, generator=generator, bias=False, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> MambaState:
        """Empty states and no inputs."""
        memory = torch.zeros(batch, self.inner, self.state_size, device=device, dtype=wide(dtype))
        return MambaState(memory, self.conv.init_state(batch, device=device, dtype=dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: MambaState
    ) -> tuple[Float[Tensor, "batch time width"], MambaState]:
        """Mix further tokens with what the states hold."""
        u, z = self.projection(x).chunk(2, -1)
        u, inputs = self.conv.stream(u, state.inputs)
        out, memory = self._scan(u, z, memory=state.memory)
        return out, MambaState(memory, inputs)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        u, z = self.projection(x).chunk(2, -1)
        return self._scan(self.conv(u, segments=segments), z, segments=segments)[0]

    def _scan(
        self, u: Tensor, z: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        u = F.silu(u)
        low, write, read = torch.split(self.select(u), [self.rank, self.state_size, self.state_size], -1)
        steps = F.softplus(self.steps(low).to(wide(u.dtype)))
        out, memory = selective_scan(
            u, steps, -self._rates(steps), write, read, initial_state=memory, segments=segments
        )
        return self.output((out + self.skip(u)) * F.silu(z)), memory

    def _rates(self, like: Tensor) -> Tensor:
        """One table of rates per member of a cohort, [members, channels, state_size]."""
        members = self.log_rate.members or 1
        rates = self.log_rate(like.new_ones(members, self.inner * self.state_size)).exp()
        return torch.unflatten(rates, -1, (self.inner, self.state_size))
