"""Native hybrid attention: slots for the long past and a window for the recent one, in one softmax (Du et al., 2025,
arXiv:2510.07019).

    q, k = x W_q, x W_k;    v = silu(x W_v);    f = logsigmoid(x W_f) / 8
    o = native_hybrid_attention(silu(q), silu(k), v, f, rotate(q), rotate(k));    y = rms_norm(silu(o)) W_o

x: [batch, time, width]; q, k, v: [batch, time, num_heads, dim]; f: [batch, time, num_heads, num_slots]. Rotary
positions act in the window alone. With no slots and a window over everything it is softmax attention, with no window it
is gated slot attention; the state is of constant size. The formulas: `contexture.ops.native_hybrid_attention`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.mixers.heads import Heads
from contexture.ops.chunks import wide
from contexture.ops.native_hybrid_attention import HybridState, native_hybrid_attention, no_tokens
from contexture.ops.rotary import rotate, turns
from contexture.ops.segments import positions as positions_of
from contexture.protocols import MixerCard

TEMPERATURE = 8.0
"""What the logarithm of a slot's decay is divided by: at the start it keeps about 92 % a step."""


class NativeHybridAttention(nn.Module):
    """Attention to a few learned summaries of the past and to the last tokens themselves, weighed against each other.

    `num_slots` is the size of a head unless given; `window` counts the present token.
    """

    card = MixerCard(
        name="native-hybrid",
        summary="One softmax weighs summaries of the long past against the last tokens themselves.",
        paper="Du et al., Native Hybrid Attention for Efficient Sequence Modeling, arXiv:2510.07019",
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
        num_slots: int | None = None,
        window: int = 64,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)
        if self.heads.dim % 2:
            raise InputError(f"rotary positions need heads of an even size, and {width} / {num_heads} is odd")
        self.num_slots = self.heads.dim if num_slots is None else num_slots
        self.window = window
        if window < 1 and not self.num_slots:
            raise InputError("there is nothing to attend to without slots and without a window: give one of them")
        slots = num_heads * self.num_slots
        self.decay = Linear(width, slots, generator=generator, bias=False) if slots else None
        self.norm = RMSNorm(width, device=generator.device)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> HybridState:
        """Empty slots and an empty window."""
        heads, dim = self.heads.num_heads, self.heads.dim
        sizes = {"slots": self.num_slots, "window": self.window, "dim": dim, "out": dim}
        return no_tokens(batch, heads, **sizes, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: HybridState
    ) -> tuple[Float[Tensor, "batch time width"], HybridState]:
        """Mix further tokens with the slots and the window in the state."""
        steps = state.positions.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        return self._attend(x, steps, state=state)

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        steps = torch.arange(x.shape[1], device=x.device).unsqueeze(0) if segments is None else positions_of(segments)
        return self._attend(x, steps, segments=segments)[0]

    def _attend(
        self, x: Tensor, steps: Tensor, *, state: HybridState | None = None, segments: Tensor | None = None
    ) -> tuple[Tensor, HybridState]:
        q, k, v = self.heads.split(x)
        factors = turns(steps, q.shape[-1], heads=self.heads.num_heads, dtype=q.dtype)
        decay = x.new_zeros(*x.shape[:2], 0) if self.decay is None else self.decay(x)
        decay = F.logsigmoid(decay.to(wide(decay.dtype))) / TEMPERATURE
        out, after = native_hybrid_attention(
            F.silu(q),
            F.silu(k),
            F.silu(v),
            torch.unflatten(decay, -1, (self.heads.num_heads, self.num_slots)),
            rotate(q, factors),
            rotate(k, factors),
            window=self.window,
            initial_state=state,
            segments=segments,
        )
        return self.heads.output(self.norm(F.silu(out.flatten(2)))), after
