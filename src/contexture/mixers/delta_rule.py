"""The delta rule as a layer (DeltaNet; Yang et al., 2024, arXiv:2406.06484).

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v));  beta = sigmoid(x W_b)
    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}' k_t)';  y_t = rms_norm(S_t' q_t) W_o

where norm divides by the Euclidean length, and conv, a causal depthwise convolution of a few taps, may be left out.
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; beta: [batch, time, num_heads]. The state is one
[dim, dim] memory per head in fp32, and the last inputs of the convolution.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.ops.chunks import wide
from contexture.ops.delta_rule import delta_rule
from contexture.ops.unit import unit
from contexture.protocols import MixerCard


class DeltaState(NamedTuple):
    """The memory, [batch, heads, dim, dim] in fp32, and the convolution's last inputs, [batch, taps - 1, 3 * width]."""

    memory: Tensor
    inputs: Tensor


class DeltaRule(nn.Module):
    """A memory that overwrites what a key recalls with the key's new value.

    `short_convolution` is the number of taps over queries, keys and values; 1 leaves the convolution out.
    """

    card = MixerCard(
        name="delta-rule",
        summary="A key-value memory that corrects what it recalls at every token.",
        paper="Yang et al., Parallelizing Linear Transformers with the Delta Rule, arXiv:2406.06484",
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
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads = ConvolvedHeads(
            width, num_heads=num_heads, generator=generator, short_convolution=short_convolution, gain=gain
        )
        self.rate = Linear(width, num_heads, generator=generator)
        self.norm = RMSNorm(self.heads.dim, device=generator.device)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> DeltaState:
        """An empty memory and no inputs."""
        heads = self.heads
        memory = torch.zeros(batch, heads.num_heads, heads.dim, heads.dim, device=device, dtype=wide(dtype))
        return DeltaState(memory, heads.init_state(batch, device=device, dtype=dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: DeltaState
    ) -> tuple[Float[Tensor, "batch time width"], DeltaState]:
        """Mix further tokens with what the memory holds."""
        heads, inputs = self.heads.stream(x, state.inputs)
        out, memory = self._recall(x, heads, memory=state.memory)
        return out, DeltaState(memory, inputs)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._recall(x, self.heads.split(x, segments=segments), segments=segments)[0]

    def _recall(
        self,
        x: Tensor,
        heads: tuple[Tensor, ...],
        *,
        memory: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        q, k, v = heads
        beta = torch.sigmoid(self.rate(x))
        out, memory = delta_rule(unit(q), unit(k), v, beta, initial_state=memory, segments=segments)
        return self.heads.join(self.norm(out)), memory
