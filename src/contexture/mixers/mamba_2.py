"""Mamba-2, a selective state space with one decay per head (Dao & Gu, 2024, arXiv:2405.21060).

    z, u, B, C = x W_in, of which u, B, C <- silu(conv(u, B, C));    dt = softplus(x W_dt + b_dt);    A = -exp(a)
    S_t = exp(dt_t A) S_{t-1} + B_t (dt_t u_t)';    y_t = rms_norm((S_t' C_t + D u_t) * silu(z_t)) W_o

which is linear attention with queries C, keys B and values dt u that decays by dt A. u has `expand` times the width,
cut into heads; B and C are shared by all heads; a, b_dt and D are one number per head. b_dt starts so that dt is
log-uniform in [0.001, 0.1], and exp(a) uniform in [1, 16]. The convolution has no offset.
x: [batch, time, width]; u, z: [batch, time, num_heads, dim]; B, C: [batch, time, state_size]. The state is one
[state_size, dim] memory per head in fp32, and the last inputs of the convolution.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.conv import Conv
from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import head_size
from contexture.mixers.steps import start_steps
from contexture.ops.chunks import wide
from contexture.ops.decayed_linear_attention import decayed_linear_attention
from contexture.protocols import MixerCard


class Mamba2State(NamedTuple):
    """The memory, [batch, heads, state_size, dim] in fp32, and the convolution's last inputs."""

    memory: Tensor
    inputs: Tensor


class Mamba2(nn.Module):
    """A state space whose input, output and step size follow the input, with one decay per head."""

    card = MixerCard(
        name="mamba-2",
        summary="A state space with one input-dependent decay per head, which makes it a decaying linear attention.",
        paper="Dao & Gu, Transformers are SSMs, arXiv:2405.21060",
        year=2024,
        state="constant",
        cost="linear",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        state_size: int = 128,
        expand: int = 2,
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        inner = expand * width
        self.inner, self.state_size = inner, state_size
        self.num_heads, self.dim = num_heads, head_size(inner, num_heads)
        self.projection = Linear(width, 2 * (inner + state_size), generator=generator, bias=False)
        self.steps = start_steps(Linear(width, num_heads, generator=generator), generator=generator)
        self.conv = Conv(inner + 2 * state_size, taps=short_convolution, generator=generator)
        self.log_rate, self.skip = Gain(num_heads, device=generator.device), Gain(num_heads, device=generator.device)
        with torch.no_grad():
            self.log_rate.weight.uniform_(1, 16, generator=generator).log_()
        self.norm = RMSNorm(inner, device=generator.device)
        self.output = Linear(inner, width, generator=generator, bias=False, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Mamba2State:
        """An empty memory and no inputs."""
        memory = torch.zeros(batch, self.num_heads, self.state_size, self.dim, device=device, dtype=wide(dtype))
        return Mamba2State(memory, self.conv.init_state(batch, device=device, dtype=dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: Mamba2State
    ) -> tuple[Float[Tensor, "batch time width"], Mamba2State]:
        """Mix further tokens with what the memory holds."""
        z, projected = self._project(x)
        projected, inputs = self.conv.stream(projected, state.inputs)
        out, memory = self._scan(x, z, projected, memory=state.memory)
        return out, Mamba2State(memory, inputs)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        z, projected = self._project(x)
        return self._scan(x, z, self.conv(projected, segments=segments), segments=segments)[0]

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, projected = torch.split(self.projection(x), [self.inner, self.inner + 2 * self.state_size], -1)
        return z, projected

    def _scan(
        self,
        x: Tensor,
        z: Tensor,
        projected: Tensor,
        *,
        memory: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        sizes = [self.inner, self.state_size, self.state_size]
        u, write, read = torch.split(F.silu(projected), sizes, -1)
        u = torch.unflatten(u, -1, (self.num_heads, self.dim))
        write, read = (part.unsqueeze(2).expand(-1, -1, self.num_heads, -1) for part in (write, read))
        steps = F.softplus(self.steps(x).to(wide(x.dtype)))
        decays = -steps * self.log_rate(steps.new_ones(len(x), 1, self.num_heads)).exp()
        values = (u * steps.unsqueeze(-1)).to(u.dtype)
        out, memory = decayed_linear_attention(read, write, values, decays, initial_state=memory, segments=segments)
        out = (out + self.skip(u.mT).mT).flatten(2)
        return self.output(self.norm(out * F.silu(z))), memory
