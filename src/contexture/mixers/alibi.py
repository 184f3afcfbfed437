"""Attention with linear biases (ALiBi; Press et al., 2021, arXiv:2108.12409).

    y_t = concat over heads of  sum_{s <= t} softmax_s(q_t.k_s / sqrt(dim) - m (t - s)) v_s,  times W_o

with a fixed slope m per head, see `contexture.ops.alibi`; nothing else tells positions apart.
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The state is every key and value seen so far.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.mixers.positioned_heads import PositionedHeads
from contexture.ops.softmax_attention import KeysValues, softmax_attention
from contexture.protocols import MixerCard


class ALiBi(nn.Module):
    """Softmax attention whose scores fall in proportion to the distance, faster in some heads than in others."""

    card = MixerCard(
        name="alibi",
        summary="Softmax attention that pays a fixed price for every token of distance.",
        paper="Press et al., Train Short, Test Long: Attention with Linear Biases, arXiv:2108.12409",
        year=2021,
        state="grows",
        cost="quadratic",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.heads = PositionedHeads(width, num_heads=num_heads, positions="alibi", generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> KeysValues:
        """No keys, no values: distances need no count of positions."""
        empty = torch.zeros(batch, 0, self.heads.num_heads, self.heads.dim, device=device, dtype=dtype)
        return KeysValues(empty, empty)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: KeysValues
    ) -> tuple[Float[Tensor, "batch time width"], KeysValues]:
        """Mix further tokens with all that the state holds."""
        out, state = softmax_attention(*self.heads.project(x), slopes=self.heads.slopes, initial_state=state)
        return self.heads.join(out), state

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        out, _ = softmax_attention(*self.heads.project(x), slopes=self.heads.slopes, segments=segments)
        return self.heads.join(out)
