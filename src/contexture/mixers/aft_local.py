"""Attention Free Transformers with biases inside a window alone (Zhai et al., 2021, arXiv:2105.14103): AFT-local and
AFT-conv.

    y_t = sigmoid(q_t) * sum_{s <= t} exp(k_s + w_ts) v_s / sum_{s <= t} exp(k_s + w_ts)

with w_ts = b_t[t - s] (AFT-local: one bias per position and lag) or w_ts = c_h[t - s] (AFT-conv: one per head and lag)
for lags below `window`, and zero further back: what has left the window is still averaged, by its keys alone.
x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The paper factorises the band of AFT-local; a table of
max_length * window numbers is smaller for windows below twice its rank.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.leaves.embedding import Embedding
from contexture.leaves.table import drawn
from contexture.mixers.aft import BIAS
from contexture.mixers.heads import Heads
from contexture.mixers.learned_positions import positions_from, positions_in
from contexture.ops.windowed_average import Window, no_window, windowed_average
from contexture.protocols import MixerCard


class AFTLocalState(NamedTuple):
    """The average of what has left the window, the window itself, and the next position, int64 [batch]."""

    window: Window
    positions: Tensor


class AFTLocal(nn.Module):
    """A gated average of all values so far, with learned biases for the last `window` of every position."""

    card = MixerCard(
        name="aft-local",
        summary="A gate reads an average of past values; the nearest have a learned bias at every position.",
        paper="Zhai et al., An Attention Free Transformer, arXiv:2105.14103",
        year=2021,
        state="constant",
        cost="linear",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        max_length: int = 1024,
        window: int = 16,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.max_length, self.window = max_length, window
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        self.biases = Embedding(max_length, window, generator=generator, std=BIAS)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> AFTLocalState:
        """An empty window and nothing before it."""
        heads = self.heads
        window = no_window(batch, heads.num_heads, heads.dim, window=self.window, device=device, dtype=dtype)
        return AFTLocalState(window, torch.zeros(batch, dtype=torch.int64, device=device))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: AFTLocalState
    ) -> tuple[Float[Tensor, "batch time width"], AFTLocalState]:
        """Mix further tokens; InputError past `max_length`."""
        steps = positions_from(x, state.positions, max_length=self.max_length, name=self.card.name)
        q, k, v = self.heads.split(x)
        out, window = windowed_average(k, v, self.biases(steps).unsqueeze(2), initial_state=state.window)
        return self.heads.join(torch.sigmoid(q) * out), AFTLocalState(window, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence; InputError past `max_length`."""
        steps = positions_in(x, segments, members=self.biases.members, max_length=self.max_length, name=self.card.name)
        q, k, v = self.heads.split(x)
        out, _ = windowed_average(k, v, self.biases(steps).unsqueeze(2), segments=segments)
        return self.heads.join(torch.sigmoid(q) * out)


class AFTConv(nn.Module):
    """A gated average of all values so far, with one learned filter of biases per head."""

    card = MixerCard(
        name="aft-conv",
        summary="A gate reads an average of past values whose weights are keys and a bias for each recent distance.",
        paper="Zhai et al., An Attention Free Transformer, arXiv:2105.14103",
        year=2021,
        state="constant",
        cost="linear",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, window: int = 16, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.window = window
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        self.filters = drawn(1, num_heads, window, std=BIAS, generator=generator)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> Window:
        """An empty window and nothing before it."""
        heads = self.heads
        return no_window(batch, heads.num_heads, heads.dim, window=self.window, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: Window
    ) -> tuple[Float[Tensor, "batch time width"], Window]:
        """Mix further tokens."""
        q, k, v = self.heads.split(x)
        out, state = windowed_average(k, v, self.filters.read(), initial_state=state)
        return self.heads.join(torch.sigmoid(q) * out), state

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        q, k, v = self.heads.split(x)
        return self.heads.join(torch.sigmoid(q) * windowed_average(k, v, self.filters.read(), segments=segments)[0])
