"""Pooling as a token mixer (PoolFormer; Yu et al., 2021, arXiv:2111.11418), looking back alone.

    y_t = g * (mean of the last `window` tokens up to x_t - x_t)

where the mean is over the tokens that there are, and g is the layer scale of the paper's blocks: the only weights.
The residual branch adds x_t again, hence the subtraction. x, y: [batch, time, width]; g: [width]. The state is the
last window - 1 tokens and the next position.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.gain import Gain
from contexture.mixers.heads import head_size
from contexture.ops.segments import positions as positions_of
from contexture.ops.short_convolution import short_convolution
from contexture.protocols import MixerCard


class PoolingState(NamedTuple):
    """The last tokens, [batch, window - 1, width], and the next position, int64 [batch]."""

    inputs: Tensor
    positions: Tensor


class Pooling(nn.Module):
    """The average of the last few tokens minus the present one; heads change nothing."""

    card = MixerCard(
        name="pooling",
        summary="The average of the last few tokens: mixing with no weights that depend on anything.",
        paper="Yu et al., MetaFormer Is Actually What You Need for Vision, arXiv:2111.11418",
        year=2021,
        state="constant",
        cost="linear",
    )

    def __init__(
        self, width: int, *, num_heads: int, generator: torch.Generator, window: int = 3, gain: float = 1.0
    ) -> None:
        super().__init__()
        head_size(width, num_heads)
        if window < 2:
            raise InputError(f"pooling over {window} tokens leaves nothing: choose a window of 2 or more")
        self.width, self.window = width, window
        self.scale = Gain(width, initial=gain, device=generator.device)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> PoolingState:
        """No tokens yet."""
        inputs = torch.zeros(batch, self.window - 1, self.width, device=device, dtype=dtype)
        return PoolingState(inputs, torch.zeros(batch, dtype=torch.int64, device=device))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: PoolingState
    ) -> tuple[Float[Tensor, "batch time width"], PoolingState]:
        """Mix further tokens with the last ones."""
        summed, inputs = short_convolution(x, self._ones(x), initial_state=state.inputs)
        steps = state.positions.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        return self._pool(x, summed, steps), PoolingState(inputs, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        steps = torch.arange(x.shape[1], device=x.device).unsqueeze(0) if segments is None else positions_of(segments)
        return self._pool(x, short_convolution(x, self._ones(x), segments=segments)[0], steps)

    def _ones(self, x: Tensor) -> Tensor:
        return torch.ones(1, self.width, self.window, device=x.device, dtype=x.dtype)

    def _pool(self, x: Tensor, summed: Tensor, steps: Int[Tensor, "rows time"]) -> Tensor:
        count = (steps + 1).clamp(max=self.window).unsqueeze(-1)
        return self.scale(summed / count.to(summed.dtype) - x)
