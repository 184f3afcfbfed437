"""DoT, the delta rule with the softmax's kernel (Behrouz et al., 2025, ATLAS, arXiv:2505.23735).

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v));  beta = sigmoid(x W_b)
    u_t = beta_t (v_t - sum_{s < t} e(k_t, k_s) u_s);  y_t = rms_norm(sum_{s <= t} e(q_t, k_s) u_s) W_o
    e(x, y) = exp(sharpness (x.y - 1))

Of the deep Omega transformers this is the one whose memory is linear in the features of the exponential and whose
window is one token. Attention adds v_t where this adds what the earlier keys do not yet say of it.

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; beta: [batch, time, num_heads]. The state is every key
and every u, which grow with time, and the last inputs of the convolution.
"""

import torch
from torch import Tensor

from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.mixers.memory import ConvolvedMemoryMixer
from contexture.ops.chunks import wide
from contexture.ops.kernel_delta_rule import KernelMemory, kernel_delta_rule
from contexture.ops.unit import unit
from contexture.protocols import MixerCard


class Dot(ConvolvedMemoryMixer):
    """Attention with the softmax's weights, not normalised, that corrects what it recalls at every token.

    `sharpness` is the square root of a head's size unless given; `short_convolution` is the number of taps.
    """

    card = MixerCard(
        name="dot",
        summary="A memory in the features of the exponential that corrects what it recalls at every token.",
        paper="Behrouz et al., ATLAS: Learning to Optimally Memorize the Context at Test Time, arXiv:2505.23735",
        year=2025,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        sharpness: float | None = None,
        short_convolution: int = 4,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads = ConvolvedHeads(
            width, num_heads=num_heads, generator=generator, short_convolution=short_convolution, gain=gain
        )
        self.sharpness = self.heads.dim**0.5 if sharpness is None else sharpness
        self.rate = Linear(width, num_heads, generator=generator)
        self.norm = RMSNorm(self.heads.dim, device=generator.device)

    def empty(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> KernelMemory:
        """No keys."""
        empty = torch.zeros(batch, 0, self.heads.num_heads, self.heads.dim, device=device, dtype=wide(dtype))
        return KernelMemory(empty, empty)

    def recall(
        self,
        x: Tensor,
        heads: tuple[Tensor, ...],
        *,
        memory: KernelMemory | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, KernelMemory]:
        """Read after correcting at every token."""
        q, k, v = heads
        out, memory = kernel_delta_rule(
            unit(q),
            unit(k),
            v,
            torch.sigmoid(self.rate(x)),
            sharpness=self.sharpness,
            initial_state=memory,
            segments=segments,
        )
        return self.heads.join(self.norm(out)), memory
