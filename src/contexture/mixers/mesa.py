"""The mesa layer (von Oswald et al., 2023, arXiv:2309.05858; as in MesaNet, 2025, arXiv:2506.05233).

    q, k = norm(silu(conv(x W_q))), norm(silu(conv(x W_k)));  v = silu(conv(x W_v));  beta = sigmoid(x W_b)
    y_t = rms_norm(argmin_S sum_{s <= t} beta_s |S' k_s - v_s|^2 + tr S' R S, transposed, times q_t) W_o
    R = diag(1/4 + softplus(r))

where norm divides by the Euclidean length, conv is a causal depthwise convolution of a few taps that may be left out,
and r, one number per head and entry, starts at R = 1. The least squares are solved exactly at every token; MesaNet
solves them by conjugate gradients, and lets the past fade, which the exact form does not allow.
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; beta: [batch, time, num_heads]. The state is the
weighted sums of k k' and k v', two [dim, dim] matrices per head in fp32, and the last inputs of the convolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.mixers.memory import ConvolvedMemoryMixer
from contexture.ops.chunks import wide
from contexture.ops.mesa import Moments, mesa
from contexture.ops.unit import unit
from contexture.protocols import MixerCard

SMALLEST = 0.25


class Mesa(ConvolvedMemoryMixer):
    """A memory that is, at every token, the best linear map from the keys so far to their values.

    `short_convolution` is the number of taps over queries, keys and values; 1 leaves the convolution out.
    """

    card = MixerCard(
        name="mesa",
        summary="A layer that solves ridge regression from keys to values at every token and predicts the query.",
        paper="von Oswald et al., MesaNet: Sequence Modeling by Locally Optimal Test-Time Training, arXiv:2506.05233",
        year=2025,
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
        self.ridge = Gain(width, initial=math.log(math.expm1(1 - SMALLEST)), device=generator.device)
        self.norm = RMSNorm(self.heads.dim, device=generator.device)

    def empty(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Moments:
        """Both sums, empty."""
        zeros: Tensor = super().empty(batch, device=device, dtype=dtype)
        return Moments(zeros, zeros)

    def recall(
        self, x: Tensor, heads: tuple[Tensor, ...], *, memory: Moments | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Moments]:
        """Read the best linear map at every token."""
        q, k, v = heads
        weight = torch.sigmoid(self.rate(x)).sqrt().unsqueeze(-1)
        raw = self.ridge(
            torch.ones(len(x), 1, self.heads.num_heads * self.heads.dim, dtype=wide(x.dtype), device=x.device)
        )
        ridge = SMALLEST + F.softplus(torch.unflatten(raw.squeeze(1), -1, (self.heads.num_heads, self.heads.dim)))
        k, v = (unit(k) * weight).to(v.dtype), (v * weight).to(v.dtype)
        out, memory = mesa(unit(q), k, v, ridge, initial_state=memory, segments=segments)
        return self.heads.join(self.norm(out)), memory
