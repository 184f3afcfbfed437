"""Sliding-window attention: softmax attention to the last `window` tokens (Beltagy et al., 2020, arXiv:2004.05150).

    y_t = concat over heads of  sum_{t - window < s <= t} softmax_s(q_t.k_s / sqrt(dim)) v_s,  times W_o

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The state is the last window - 1 keys and values.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.mixers.positioned_heads import PositionedHeads, Positions, steps_after, steps_of
from contexture.ops.window_attention import WindowState, no_window, window_attention
from contexture.protocols import MixerCard


class SlidingWindow(nn.Module):
    """Softmax attention to the last tokens alone, at a cost that is linear in time.

    >>> mixer = SlidingWindow(8, num_heads=2, window=2, generator=torch.Generator().manual_seed(0))
    >>> mixer.init_state(1, device="cpu", dtype=torch.float32).keys.shape
    torch.Size([1, 1, 2, 4])
    """

    card = MixerCard(
        name="sliding-window",
        summary="Softmax attention that sees the last few tokens and forgets the others.",
        paper="Beltagy et al., Longformer: The Long-Document Transformer, arXiv:2004.05150",
        year=2020,
        state="constant",
        cost="linear",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        window: int = 64,
        positions: Positions = "rotary",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if window < 1:
            raise InputError(f"a window of {window} tokens sees nothing: it must hold at least the present one")
        self.window = window
        self.heads = PositionedHeads(width, num_heads=num_heads, positions=positions, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> WindowState:
        """An empty window."""
        heads = self.heads
        return no_window(batch, heads.num_heads, heads.dim, window=self.window, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: WindowState
    ) -> tuple[Float[Tensor, "batch time width"], WindowState]:
        """Mix further tokens with those in the window."""
        q, k, v = self.heads.split(x, steps_after(x, state.seen))
        out, state = window_attention(q, k, v, slopes=self.heads.slopes, window=self.window, initial_state=state)
        return self.heads.join(out), state

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        q, k, v = self.heads.split(x, steps_of(x, segments))
        out, _ = window_attention(q, k, v, slopes=self.heads.slopes, window=self.window, segments=segments)
        return self.heads.join(out)
