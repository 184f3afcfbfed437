"""ReBased: attention by a learned square (Aksenov et al., 2024, arXiv:2402.10644).

    o_t = sum_{s <= t} v_s z_ts^2 / (epsilon + sum_{s <= t} z_ts^2),    z_ts = q'_t.k'_s / sqrt(key_dim)
    q' = g_q * norm(q) + b_q,    k' = g_k * norm(k) + b_k

norm takes the mean from every vector and divides by its deviation; g and b are learned, so that a weight can come down
to zero, where Based's never falls below 1/2. The paper's feature map is the square of such a vector, (g norm(x) + b)^2,
whose products of pairs make z^2. epsilon keeps the ratio finite where every weight is near zero.

x: [batch, time, width]; q, k: [batch, time, num_heads, key_dim]; v: [batch, time, num_heads, dim]. The state is one
[features, dim + 1] sum per head, with about key_dim^2 / 2 features. g and b are shared by all heads.
"""

import torch
from torch import Tensor

from contexture.leaves.norm import LayerNorm
from contexture.mixers.heads import Heads
from contexture.mixers.memory import MemoryMixer
from contexture.ops.quadratic_attention import num_features, quadratic_attention
from contexture.ops.weighted_average import weighted_average
from contexture.protocols import MixerCard

SQUARE = (0.0, 0.0, 1.0)
EPSILON = 1e-5


class ReBased(MemoryMixer):
    """Attention whose weights are squares of products of learned, normalised queries and keys."""

    card = MixerCard(
        name="rebased",
        summary="Attention weighted by a learned square, so that weights can vanish and the past is one sum.",
        paper="Aksenov et al., Linear Transformers with Learnable Kernel Functions are Better In-Context Models, "
        "arXiv:2402.10644",
        year=2024,
        state="constant",
        cost="linear",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, key_dim: int = 16, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, key_dim=key_dim, generator=generator, gain=gain)
        self.query_norm = LayerNorm(key_dim, device=generator.device)
        self.key_norm = LayerNorm(key_dim, device=generator.device)
        self.memory_shape = (num_heads, num_features(key_dim, SQUARE), self.heads.dim + 1)

    def attend(
        self, x: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Average values with the squares."""
        q, k, v = self.heads.split(x)
        out, memory = weighted_average(
            quadratic_attention,
            self.query_norm(q) * q.shape[-1] ** -0.5,
            self.key_norm(k),
            v.to(self.key_norm.weight.dtype),
            initial_state=memory,
            segments=segments,
            epsilon=EPSILON,
            coefficients=SQUARE,
        )
        return self.heads.join(out.to(x.dtype)), memory
