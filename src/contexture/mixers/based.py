"""Based: attention by the exponential's Taylor series up to the square (Arora et al., 2024, arXiv:2402.18668).

    o_t = sum_{s <= t} v_s p(z_ts) / sum_{s <= t} p(z_ts),    z_ts = q_t.k_s / sqrt(key_dim),    p(z) = 1 + z + z^2 / 2

p is at least 1/2, so that no sum of weights vanishes. The paper lets these layers take turns with attention over a
short window; this is the former kind alone.

x: [batch, time, width]; q, k: [batch, time, num_heads, key_dim]; v: [batch, time, num_heads, dim]. The state is one
[features, dim + 1] sum per head, with about key_dim^2 / 2 features.
"""

import torch
from torch import Tensor

from contexture.mixers.heads import Heads
from contexture.mixers.memory import MemoryMixer
from contexture.ops.quadratic_attention import num_features, quadratic_attention
from contexture.ops.weighted_average import weighted_average
from contexture.protocols import MixerCard


class Based(MemoryMixer):
    """Attention whose weights are the first three terms of the exponential, over small queries and keys."""

    card = MixerCard(
        name="based",
        summary="Attention weighted by the exponential's first three terms, so that the past is one sum.",
        paper="Arora et al., Simple Linear Attention Language Models Balance the Recall-Throughput Tradeoff, "
        "arXiv:2402.18668",
        year=2024,
        state="constant",
        cost="linear",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, key_dim: int = 16, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, key_dim=key_dim, generator=generator, gain=gain)
        self.memory_shape = (num_heads, num_features(key_dim), self.heads.dim + 1)

    def attend(
        self, x: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Average values with the polynomial's weights."""
        q, k, v = self.heads.split(x)
        scaled = q * q.shape[-1] ** -0.5
        out, memory = weighted_average(quadratic_attention, scaled, k, v, initial_state=memory, segments=segments)
        return self.heads.join(out), memory
