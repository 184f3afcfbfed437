"""Causal linear attention with two feature maps.

As a transformer's attention (Katharopoulos et al., 2020, arXiv:2006.16236), with f(x) = elu(x) + 1:

    o_t = sum_{s <= t} v_s f(k_s).f(q_t) / sum_{s <= t} f(k_s).f(q_t)

As theory writes it (von Oswald et al., 2023, arXiv:2212.07677; Zhang et al., 2023, arXiv:2306.09927), f the identity:

    o_t = (1 / t) sum_{s <= t} v_s k_s.q_t

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The state is one [dim, out] sum per head in fp32.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.mixers.heads import Heads
from contexture.ops.chunks import wide
from contexture.ops.linear_attention import linear_attention
from contexture.ops.segments import positions as positions_of
from contexture.ops.weighted_average import weighted_average
from contexture.protocols import MixerCard


class LinearState(NamedTuple):
    """Sums of key-value products, [batch, heads, dim, out] in fp32, and the next position, int64 [batch]."""

    memory: Tensor
    positions: Tensor


def _memory(batch: int, heads: int, dim: int, out: int, device: torch.device | str, dtype: torch.dtype) -> LinearState:
    memory = torch.zeros(batch, heads, dim, out, device=device, dtype=wide(dtype))
    return LinearState(memory, torch.zeros(batch, dtype=torch.int64, device=device))


class LinearAttention(nn.Module):
    """Attention with the feature map elu + 1, normalised by the sum of its weights."""

    card = MixerCard(
        name="linear-attention",
        summary="Attention whose weights are products of positive features, so that the past is one sum.",
        paper="Katharopoulos et al., Transformers are RNNs, arXiv:2006.16236",
        year=2020,
        state="constant",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> LinearState:
        """Empty sums; the last column of each sums the keys themselves."""
        heads = self.heads
        return _memory(batch, heads.num_heads, heads.dim, heads.dim + 1, device, dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: LinearState
    ) -> tuple[Float[Tensor, "batch time width"], LinearState]:
        """Mix further tokens with the sums in the state."""
        out, memory = self._attend(x, memory=state.memory)
        return out, LinearState(memory, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._attend(x, segments=segments)[0]

    def _attend(
        self, x: Tensor, *, memory: Tensor | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        q, k, v = self.heads.split(x)
        mixed, memory = weighted_average(
            linear_attention, F.elu(q) + 1, F.elu(k) + 1, v, initial_state=memory, segments=segments
        )
        return self.heads.join(mixed), memory


class IdentityLinearAttention(nn.Module):
    """Attention with no feature map, averaged over time: in theory, one step of gradient descent per layer."""

    card = MixerCard(
        name="linear-attention-identity",
        summary="Attention without the softmax, averaged over positions, as theory writes it.",
        paper="von Oswald et al., Transformers Learn In-Context by Gradient Descent, arXiv:2212.07677",
        year=2022,
        state="constant",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> LinearState:
        """Empty sums."""
        return _memory(batch, self.heads.num_heads, self.heads.dim, self.heads.dim, device, dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: LinearState
    ) -> tuple[Float[Tensor, "batch time width"], LinearState]:
        """Mix further tokens with the sums in the state."""
        steps = state.positions.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        q, k, v = self.heads.split(x)
        out, memory = linear_attention(q, k, v, initial_state=state.memory)
        return self._average(out, steps), LinearState(memory, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        steps = torch.arange(x.shape[1], device=x.device).unsqueeze(0) if segments is None else positions_of(segments)
        q, k, v = self.heads.split(x)
        return self._average(linear_attention(q, k, v, segments=segments)[0], steps)

    def _average(self, out: Tensor, steps: Int[Tensor, "rows time"]) -> Tensor:
        share = (steps + 1).to(wide(out.dtype)).reciprocal().to(out.dtype)
        return self.heads.join(out * share[:, :, None, None])
