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
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.gain import Gain
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import ConvolvedHeads
from contexture.ops.chunks import wide
from contexture.ops.mesa import Moments, mesa
from contexture.ops.unit import unit
from contexture.protocols import MixerCard

SMALLEST = 0.25


class MesaState(NamedTuple):
    """The sums, each [batch, heads, dim, dim] in fp32, and the convolution's last inputs."""

    moments: Moments
    inputs: Tensor


class Mesa(nn.Module):
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

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> MesaState:
        """Empty sums and no inputs."""
        heads = self.heads
        zeros = torch.zeros(batch, heads.num_heads, heads.dim, heads.dim, device=device, dtype=wide(dtype))
        return MesaState(Moments(zeros, zeros), heads.init_state(batch, device=device, dtype=dtype))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: MesaState
    ) -> tuple[Float[Tensor, "batch time width"], MesaState]:
        """Mix further tokens with what the sums hold."""
        heads, inputs = self.heads.stream(x, state.inputs)
        out, moments = self._regress(x, heads, moments=state.moments)
        return out, MesaState(moments, inputs)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._regress(x, self.heads.split(x, segments=segments), segments=segments)[0]

    def _regress(
        self,
        x: Tensor,
        heads: tuple[Tensor, ...],
        *,
        moments: Moments | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, Moments]:
        q, k, v = heads
        weight = torch.sigmoid(self.rate(x)).sqrt().unsqueeze(-1)
        raw = self.ridge(
            torch.ones(len(x), 1, self.heads.num_heads * self.heads.dim, dtype=wide(x.dtype), device=x.device)
        )
        ridge = SMALLEST + F.softplus(torch.unflatten(raw.squeeze(1), -1, (self.heads.num_heads, self.heads.dim)))
        k, v = (unit(k) * weight).to(v.dtype), (v * weight).to(v.dtype)
        out, moments = mesa(unit(q), k, v, ridge, initial_state=moments, segments=segments)
        return self.heads.join(self.norm(out)), moments
