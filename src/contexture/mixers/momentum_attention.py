"""Momentum attention (Dai et al., 2022, arXiv:2212.10559): what momentum is to gradient descent, seen from attention.

    o_t = sum_{s <= t} softmax_s(q_t.k_s / sqrt(dim)) v_s  +  sum_{s < t} momentum^(t - s) v_s
    y_t = concat over heads of o, times W_o

The values play the part of gradients, so the second sum is their exponential moving average. Its weights add up to
momentum / (1 - momentum): at 0.5, the default, as much as attention's; at 0.9 nine times as much.
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The state is every key and value seen so far, and the
decaying sum of the values, [batch, num_heads, dim] in fp32.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.mixers.positioned_heads import PositionedHeads, Positions, steps_after, steps_of
from contexture.ops.chunks import wide
from contexture.ops.moving_average import moving_average
from contexture.ops.softmax_attention import KeysValues, softmax_attention
from contexture.protocols import MixerCard


class MomentumState(NamedTuple):
    """Keys and values seen so far, [batch, past, heads, dim], the decaying sum of values, and the next position."""

    keys: Tensor
    values: Tensor
    average: Tensor
    positions: Tensor


class MomentumAttention(nn.Module):
    """Softmax attention plus a decaying sum of the earlier values; `momentum` = 0 leaves softmax attention."""

    card = MixerCard(
        name="momentum-attention",
        summary="Softmax attention that adds a moving average of past values, as momentum adds past gradients.",
        paper="Dai et al., Why Can GPT Learn In-Context?, arXiv:2212.10559",
        year=2022,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        momentum: float = 0.5,
        positions: Positions = "rotary",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise InputError(f"a momentum of {momentum} does not decay: it must be at least 0 and below 1")
        self.momentum = momentum
        self.heads = PositionedHeads(width, num_heads=num_heads, positions=positions, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> MomentumState:
        """No keys, no values."""
        heads, dim = self.heads.num_heads, self.heads.dim
        empty = torch.zeros(batch, 0, heads, dim, device=device, dtype=dtype)
        average = torch.zeros(batch, heads, dim, device=device, dtype=wide(dtype))
        return MomentumState(empty, empty, average, torch.zeros(batch, dtype=torch.int64, device=device))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: MomentumState
    ) -> tuple[Float[Tensor, "batch time width"], MomentumState]:
        """Mix further tokens with all that the state holds."""
        q, k, v = self.heads.split(x, steps_after(x, state.positions))
        past = KeysValues(state.keys, state.values)
        out, seen = softmax_attention(q, k, v, slopes=self.heads.slopes, initial_state=past)
        sums, average = moving_average(v, decay=self.momentum, initial_state=state.average)
        return self.heads.join(out + sums - v), MomentumState(*seen, average, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        q, k, v = self.heads.split(x, steps_of(x, segments))
        out, _ = softmax_attention(q, k, v, slopes=self.heads.slopes, segments=segments)
        sums, _ = moving_average(v, decay=self.momentum, segments=segments)
        return self.heads.join(out + sums - v)
