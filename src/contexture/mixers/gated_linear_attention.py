"""Gated linear attention as a layer (GLA; Yang et al., 2023, arXiv:2312.06635).

    q, k, v = x W_q / sqrt(dim), x W_k, x W_v;    g = log sigmoid(x W_1 W_2 + b) / temperature
    S_t = diag(exp g_t) S_{t-1} + k_t v_t';    y_t = (silu(x_t W_r + b_r) * rms_norm(S_t' q_t)) W_o

where W_1 W_2 has a low rank.
x: [batch, time, width]; q, k, g: [batch, time, num_heads, dim], half as wide as v: [batch, time, num_heads, 2 dim].
The state is one [dim, 2 dim] memory per head in fp32.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.ops.chunks import wide
from contexture.ops.gated_linear_attention import gated_linear_attention
from contexture.protocols import MixerCard


class GatedState(NamedTuple):
    """The memory, [batch, heads, dim, out] in fp32."""

    memory: Tensor


class GatedLinearAttention(nn.Module):
    """Linear attention in which every key channel forgets as the input says.

    `rank` is that of the gate's projection; a higher `temperature` forgets more slowly.
    """

    card = MixerCard(
        name="gated-linear-attention",
        summary="A key-value memory whose every key channel fades at a rate read off the input.",
        paper="Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv:2312.06635",
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
        rank: int = 16,
        temperature: float = 16.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.width, self.num_heads, self.temperature = width, num_heads, temperature
        if width % (2 * num_heads):
            raise InputError(f"half a width of {width}, which keys take, cannot be split into {num_heads} heads")
        self.dim = width // (2 * num_heads)
        self.projection = Linear(width, 2 * width, generator=generator, bias=False)
        self.down = Linear(width, rank, generator=generator, bias=False)
        self.up = Linear(rank, width // 2, generator=generator)
        self.gate = Linear(width, width, generator=generator)
        self.norm = RMSNorm(2 * self.dim, device=generator.device)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> GatedState:
        """An empty memory."""
        return GatedState(torch.zeros(batch, self.num_heads, self.dim, 2 * self.dim, device=device, dtype=wide(dtype)))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: GatedState
    ) -> tuple[Float[Tensor, "batch time width"], GatedState]:
        """Mix further tokens with what the memory holds."""
        out, memory = self._attend(x, memory=state.memory)
        return out, GatedState(memory)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._attend(x, segments=segments)[0]

    def _attend(
        self, x: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        half = self.width // 2
        parts = (*torch.split(self.projection(x), [half, half, self.width], -1), self.up(self.down(x)))
        q, k, v, fading = (torch.unflatten(part, -1, (self.num_heads, -1)) for part in parts)
        fading = F.logsigmoid(fading.to(wide(x.dtype))) / self.temperature
        out, memory = gated_linear_attention(q * self.dim**-0.5, k, v, fading, initial_state=memory, segments=segments)
        return self.output(F.silu(self.gate(x)) * self.norm(out).flatten(2)), memory
