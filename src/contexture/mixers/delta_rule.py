"""The delta rule as a layer (DeltaNet; Yang et al., 2024, arXiv:2406.06484).

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v));  beta = sigmoid(x W_b)
    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}' k_t)';  y_t = rms_norm(S_t' q_t) W_o

where norm divides by the Euclidean length, and conv, a causal depthwise convolution of a few taps, may be left out.
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; beta: [batch, time, num_heads]. The state is one
[dim, dim] memory per head in fp32, and the last inputs of the convolution.
"""

import torch
from torch import Tensor

from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.mixers.memory import ConvolvedMemoryMixer
from contexture.ops.delta_rule import delta_rule
from contexture.ops.unit import unit
from contexture.protocols import MixerCard


class DeltaRule(ConvolvedMemoryMixer):
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

    def recall(
        self, x: Tensor, heads: tuple[Tensor, ...], *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read after correcting at every token."""
        q, k, v = heads
        beta = torch.sigmoid(self.rate(x))
        out, memory = delta_rule(unit(q), unit(k), v, beta, initial_state=memory, segments=segments)
        return self.heads.join(self.norm(out)), memory
