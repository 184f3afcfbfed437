"""Queries, keys and values that know their positions: what the variants of softmax attention share.

    q, k, v = split(x W), q and k turned by their positions (rotary), or left as they are
    y = concat over heads of o, times W_o

x, y: [batch, time, width]; q: [batch, time, num_heads, dim]; k, v: [batch, time, num_kv_heads, dim], where each of the
num_kv_heads serves num_heads / num_kv_heads queries; steps: int64 [batch or 1, time]. Linear biases (ALiBi) turn
nothing: their `slopes` go to the op. This is no mixer: a mixer holds one and adds its op.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.mixers.heads import head_size
from contexture.ops.alibi import slopes
from contexture.ops.rotary import rotate, turns
from contexture.ops.segments import positions as positions_of

Positions = Literal["rotary", "alibi", "none"]


class PositionedHeads(nn.Module):
    """Heads with a scheme of positions, and the way back to the width."""

    slopes: Tensor | None

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        num_kv_heads: int | None = None,
        positions: Positions = "rotary",
        generator: torch.Generator,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.dim, self.positions = num_heads, head_size(width, num_heads), positions
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if self.num_kv_heads < 1 or num_heads % self.num_kv_heads:
            raise InputError(f"{num_heads} heads cannot share {self.num_kv_heads} heads of keys and values evenly")
        if positions not in ("rotary", "alibi", "none"):
            raise InputError(f"there are no positions {positions!r}: there are rotary, alibi, none")
        if positions == "rotary" and self.dim % 2:
            raise InputError(f"rotary positions need heads of even size, and {width} / {num_heads} is {self.dim}")
        served = num_heads + 2 * self.num_kv_heads
        self.projection = Linear(width, served * self.dim, generator=generator, bias=False)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)
        biases = slopes(num_heads, device=generator.device) if positions == "alibi" else None
        self.register_buffer("slopes", biases, persistent=False)

    def project(self, x: Float[Tensor, "batch time width"]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v before they are turned."""
        parts = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
        q, k, v = torch.split(torch.unflatten(self.projection(x), -1, (-1, self.dim)), parts, 2)
        return q, k, v

    def place(self, x: Float[Tensor, "batch time heads dim"], steps: Int[Tensor, "rows time"]) -> Tensor:
        """Queries or keys turned to their positions."""
        if self.positions != "rotary":
            return x
        return rotate(x, turns(steps, self.dim, heads=x.shape[2], dtype=x.dtype))

    def split(
        self, x: Float[Tensor, "batch time width"], steps: Int[Tensor, "rows time"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v at their positions."""
        q, k, v = self.project(x)
        return self.place(q, steps), self.place(k, steps), v

    def join(self, mixed: Float[Tensor, "batch time heads dim"]) -> Float[Tensor, "batch time width"]:
        """Back to the width."""
        return self.output(mixed.flatten(2))


def steps_of(x: Float[Tensor, "batch time width"], segments: Int[Tensor, "batch time"] | None) -> Tensor:
    """The positions of a whole sequence, or of packed ones: int64 [1 or batch, time]."""
    return torch.arange(x.shape[1], device=x.device).unsqueeze(0) if segments is None else positions_of(segments)


def steps_after(x: Float[Tensor, "batch time width"], seen: Int[Tensor, " batch"]) -> Int[Tensor, "batch time"]:
    """The positions of tokens that follow `seen` others."""
    return seen.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
