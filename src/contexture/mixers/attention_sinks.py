"""Attention sinks: a sliding window and the first tokens beside it (StreamingLLM; Xiao et al., 2023, arXiv:2309.17453).

    y_t = concat over heads of  sum_s softmax_s(q_t.k_s / sqrt(dim)) v_s,  times W_o,
    over the last `window` tokens and the first `num_sinks`

Positions are those within what is kept, as in the paper: the last window + num_sinks tokens of a short sequence lie
where they lie in the text, and from then on the sinks move along, num_sinks + window - 1 - s tokens behind the query.

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]. The state is the keys and values of the sinks and of
the last window - 1 tokens.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.mixers.positioned_heads import PositionedHeads, Positions, steps_after, steps_of
from contexture.ops.window_attention import WindowState, no_window, window_attention
from contexture.protocols import MixerCard


class AttentionSinks(nn.Module):
    """Softmax attention to the last tokens and to the first ones, which take up what attention is left over."""

    card = MixerCard(
        name="attention-sinks",
        summary="A sliding window that keeps the very first tokens in sight for good.",
        paper="Xiao et al., Efficient Streaming Language Models with Attention Sinks, arXiv:2309.17453",
        year=2023,
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
        num_sinks: int = 4,
        positions: Positions = "rotary",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if window < 1 or num_sinks < 0:
            raise InputError(f"a window of {window} beside {num_sinks} sinks is too small: it needs 1 and 0 at least")
        self.window, self.num_sinks = window, num_sinks
        self.heads = PositionedHeads(width, num_heads=num_heads, positions=positions, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> WindowState:
        """An empty window and no sinks yet."""
        heads, sizes = self.heads, {"window": self.window, "num_sinks": self.num_sinks}
        return no_window(batch, heads.num_heads, heads.dim, **sizes, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: WindowState
    ) -> tuple[Float[Tensor, "batch time width"], WindowState]:
        """Mix further tokens with the sinks and with those in the window."""
        return self._attend(x, steps_after(x, state.seen), state=state)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self._attend(x, steps_of(x, segments), segments=segments)[0]

    def _attend(
        self, x: Tensor, steps: Tensor, *, state: WindowState | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, WindowState]:
        q, k, v = self.heads.project(x)
        towards_sinks = self.heads.place(q, steps.clamp(max=self.num_sinks + self.window - 1))
        out, state = window_attention(
            self.heads.place(q, steps),
            self.heads.place(k, steps),
            v,
            towards_sinks,
            self.heads.slopes,
            window=self.window,
            num_sinks=self.num_sinks,
            initial_state=state,
            segments=segments,
        )
        return self.heads.join(out), state
