"""Attention Free Transformers over the whole past (Zhai et al., 2021, arXiv:2105.14103): AFT-simple and AFT-full.

    y_t = sigmoid(q_t) * sum_{s <= t} exp(k_s + w_ts) v_s / sum_{s <= t} exp(k_s + w_ts),    w_ts = a_t.b_s

channel by channel; AFT-simple has no biases w. q, k, v = x W_q, x W_k, x W_v, and the output is y W_o.
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim], where heads have no meaning of their own; a, b: one
learned vector of `rank` numbers for each of `max_length` positions (no more numbers than positions).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.embedding import Embedding
from contexture.mixers.heads import Heads
from contexture.mixers.learned_positions import positions_from, positions_in
from contexture.ops.biased_average import Past, biased_average
from contexture.ops.exponential_average import LogAverage, exponential_average, nothing
from contexture.protocols import MixerCard

BIAS = 0.01
"""The standard deviation with which position biases start."""


class AFTSimple(nn.Module):
    """A gated average of all values so far, weighted by the exponentials of their keys."""

    card = MixerCard(
        name="aft-simple",
        summary="A gate reads the average of past values, which each key weighs by its exponential alone.",
        paper="Zhai et al., An Attention Free Transformer, arXiv:2105.14103",
        year=2021,
        state="constant",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> LogAverage:
        """The average over nothing."""
        return nothing(batch, self.heads.num_heads, self.heads.dim, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: LogAverage
    ) -> tuple[Float[Tensor, "batch time width"], LogAverage]:
        """Mix further tokens with the average in the state."""
        q, k, v = self.heads.split(x)
        out, state = exponential_average(k, v, initial_state=state)
        return self.heads.join(torch.sigmoid(q) * out), state

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        q, k, v = self.heads.split(x)
        return self.heads.join(torch.sigmoid(q) * exponential_average(k, v, segments=segments)[0])


class AFTFullState(NamedTuple):
    """Keys and values so far, [batch, past, heads, dim], what the positions add to them, [batch, past, rank], and the
    next position, int64 [batch]."""

    keys: Tensor
    values: Tensor
    biases: Tensor
    positions: Tensor


class AFTFull(nn.Module):
    """AFT-simple with a learned bias for every pair of positions, as a product of two factors."""

    card = MixerCard(
        name="aft-full",
        summary="A gate reads an average of past values whose weights are keys and learned biases of position pairs.",
        paper="Zhai et al., An Attention Free Transformer, arXiv:2105.14103",
        year=2021,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        max_length: int = 1024,
        rank: int = 128,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        rank = min(rank, max_length)
        std = (BIAS * rank**-0.5) ** 0.5
        self.left = Embedding(max_length, rank, generator=generator, std=std)
        self.right = Embedding(max_length, rank, generator=generator, std=std)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> AFTFullState:
        """No keys, no values."""
        empty = torch.zeros(batch, 0, self.heads.num_heads, self.heads.dim, device=device, dtype=dtype)
        biases = torch.zeros(batch, 0, self.right.width, device=device, dtype=dtype)
        return AFTFullState(empty, empty, biases, torch.zeros(batch, dtype=torch.int64, device=device))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: AFTFullState
    ) -> tuple[Float[Tensor, "batch time width"], AFTFullState]:
        """Mix further tokens with all that the state holds; InputError past `max_length`."""
        steps = positions_from(x, state.positions, max_length=self.max_length, name=self.card.name)
        q, k, v = self.heads.split(x)
        out, seen = biased_average(k, v, self.left(steps), self.right(steps), initial_state=Past(*state[:3]))
        return self.heads.join(torch.sigmoid(q) * out), AFTFullState(*seen, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence; InputError past `max_length`."""
        steps = positions_in(x, segments, members=self.left.members, max_length=self.max_length, name=self.card.name)
        q, k, v = self.heads.split(x)
        out, _ = biased_average(k, v, self.left(steps), self.right(steps), segments=segments)
        return self.heads.join(torch.sigmoid(q) * out)
