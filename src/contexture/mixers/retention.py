"""Retention (RetNet; Sun et al., 2023, arXiv:2307.08621): rotated keys in a memory that forgets at a fixed pace.

    q, k, v = turn(x W_q), turn(x W_k) / sqrt(dim), x W_v;    gamma_h = 1 - 2^(-5-h)
    S_t = gamma S_{t-1} + k_t v_t';    y_t = (silu(x_t W_g) * group_norm(S_t' q_t)) W_o

turn rotates by the position as in `contexture.ops.rotary`; the group norm is a layer norm of each head, with one gain
and offset for all of them. The paper's further scalings are undone by the norm and are left out.
x: [batch, time, width]; q, k: [batch, time, num_heads, dim], v: twice as wide. The state is one [dim, 2 dim] memory per
head in fp32, and the position.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import LayerNorm
from contexture.mixers.heads import head_size
from contexture.ops.chunks import wide
from contexture.ops.decayed_linear_attention import decayed_linear_attention
from contexture.ops.rotary import rotate, turns
from contexture.ops.segments import positions as positions_of
from contexture.protocols import MixerCard


class RetentionState(NamedTuple):
    """The memory, [batch, heads, dim, 2 dim] in fp32, and the next position, int64 [batch]."""

    memory: Tensor
    positions: Tensor


class Retention(nn.Module):
    """Linear attention with rotary positions whose heads forget at different, fixed paces."""

    card = MixerCard(
        name="retention",
        summary="A key-value memory whose heads fade at fixed paces, read with rotary positions and gated.",
        paper="Sun et al., Retentive Network: A Successor to Transformer for Large Language Models, arXiv:2307.08621",
        year=2023,
        state="constant",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.width, self.num_heads, self.dim = width, num_heads, head_size(width, num_heads)
        if self.dim % 2:
            raise InputError(
                f"{num_heads} heads of a width of {width} have an odd size: rotary positions need an even one"
            )
        self.projection = Linear(width, 6 * width, generator=generator, bias=False)
        self.norm = LayerNorm(2 * self.dim, device=generator.device)
        self.output = Linear(2 * width, width, generator=generator, bias=False, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> RetentionState:
        """An empty memory."""
        memory = torch.zeros(batch, self.num_heads, self.dim, 2 * self.dim, device=device, dtype=wide(dtype))
        return RetentionState(memory, torch.zeros(batch, dtype=torch.int64, device=device))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: RetentionState
    ) -> tuple[Float[Tensor, "batch time width"], RetentionState]:
        """Mix further tokens with what the memory holds."""
        steps = state.positions.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        out, memory = self._retain(x, steps, memory=state.memory)
        return out, RetentionState(memory, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        steps = torch.arange(x.shape[1], device=x.device).unsqueeze(0) if segments is None else positions_of(segments)
        return self._retain(x, steps, segments=segments)[0]

    def _retain(
        self,
        x: Tensor,
        steps: Int[Tensor, "rows time"],
        *,
        memory: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        q, k, v, gate = torch.split(self.projection(x), [self.width, self.width, 2 * self.width, 2 * self.width], -1)
        q, k, v = (torch.unflatten(part, -1, (self.num_heads, -1)) for part in (q, k, v))
        factors = turns(steps, self.dim, heads=self.num_heads, dtype=q.dtype)
        pace = torch.arange(self.num_heads, device=x.device, dtype=wide(x.dtype))
        fading = torch.log1p(-torch.exp2(-5 - pace)).expand(*x.shape[:2], -1)
        k = rotate(k, factors) * self.dim**-0.5
        out, memory = decayed_linear_attention(
            rotate(q, factors), k, v, fading, initial_state=memory, segments=segments
        )
        return self.output(F.silu(gate) * self.norm(out).flatten(2)), memory
