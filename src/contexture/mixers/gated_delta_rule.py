"""The gated delta rule as a layer (Gated DeltaNet; Yang et al., 2024, arXiv:2412.06464).

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v));  beta = sigmoid(x W_b)
    g = -exp(a) softplus(x W_a + d)
    S_t = exp(g_t) S_{t-1} + beta_t k_t (v_t - exp(g_t) S_{t-1}' k_t)';  y_t = (rms_norm(S_t' q_t) * silu(x_t W_g)) W_o

where norm divides by the Euclidean length, and conv, a causal depthwise convolution of a few taps, may be left out. The
decay is Mamba-2's (Dao & Gu, arXiv:2405.21060): a and d are one number per head, exp(a) starts uniform in [1, 16] and
softplus(d) log-uniform in [0.001, 0.1].
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; beta, g: [batch, time, num_heads]. The state is one
[dim, dim] memory per head in fp32, and the last inputs of the convolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.mixers.memory import ConvolvedMemoryMixer
from contexture.mixers.steps import start_steps
from contexture.ops.chunks import wide
from contexture.ops.gated_delta_rule import gated_delta_rule
from contexture.ops.unit import unit
from contexture.protocols import MixerCard


class GatedDeltaRule(ConvolvedMemoryMixer):
    """A memory that fades as a whole and overwrites what a key recalls with the key's new value.

    `short_convolution` is the number of taps over queries, keys and values; 1 leaves the convolution out.
    """

    card = MixerCard(
        name="gated-delta-rule",
        summary="A key-value memory that fades at a learned rate and corrects what it recalls at every token.",
        paper="Yang et al., Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464",
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
        self.steps = start_steps(Linear(width, num_heads, generator=generator), generator=generator)
        self.log_decay = Gain(num_heads, device=generator.device)
        with torch.no_grad():
            self.log_decay.weight.uniform_(1, 16, generator=generator).log_()
        self.gate = Linear(width, width, generator=generator, bias=False)
        self.norm = RMSNorm(self.heads.dim, device=generator.device)

    def recall(
        self, x: Tensor, heads: tuple[Tensor, ...], *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Read after fading and correcting at every token; the output is gated."""
        q, k, v = heads
        beta = torch.sigmoid(self.rate(x))
        steps = F.softplus(self.steps(x).to(wide(x.dtype)))
        decay = -steps * self.log_decay(steps.new_ones(len(x), 1, self.heads.num_heads)).exp()
        out, memory = gated_delta_rule(unit(q), unit(k), v, beta, decay, initial_state=memory, segments=segments)
        return self.heads.join(self.norm(out) * F.silu(torch.unflatten(self.gate(x), -1, v.shape[2:]))), memory
