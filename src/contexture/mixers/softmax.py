"""Multi-head causal softmax attention (Vaswani et al., 2017, arXiv:1706.03762), with rotary positions or with none.

    q, k, v = x W_q, x W_k, x W_v;    y = concat over heads of attention(q, k, v) W_o

With `qkv_norm` each of q, k, v gets a root-mean-square norm per head, before positions, as in HybridNorm (Zhuo et al.,
2025, arXiv:2503.04598).
x: [batch, time, width]; heads: [batch, time, num_heads, width / num_heads]. The streaming state is every key and value
seen so far, so it grows with time.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.leaves.linear import Linear
from contexture.leaves.norm import RMSNorm
from contexture.ops.rotary import rotate, turns
from contexture.ops.segments import positions as positions_of
from contexture.ops.softmax_attention import KeysValues, softmax_attention, visible
from contexture.protocols import MixerCard


class SoftmaxState(NamedTuple):
    """Keys and values seen so far, [batch, past, heads, dim], and the next position, int64 [batch]."""

    keys: Tensor
    values: Tensor
    positions: Tensor


class SoftmaxAttention(nn.Module):
    """Softmax attention over all earlier positions and the present one.

    >>> mixer = SoftmaxAttention(8, num_heads=2, generator=torch.Generator().manual_seed(0))
    >>> mixer(torch.ones(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    card = MixerCard(
        name="softmax",
        summary="Every position attends to all earlier ones with softmax weights.",
        paper="Vaswani et al., Attention Is All You Need, arXiv:1706.03762",
        year=2017,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        positions: Literal["rotary", "none"] = "rotary",
        qkv_norm: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if width % num_heads or (positions == "rotary" and width // num_heads % 2):
            raise InputError(
                f"a width of {width} cannot be split into {num_heads} heads"
                + (" of even size, as rotary positions need" if positions == "rotary" else "")
            )
        self.num_heads, self.dim, self.positions = num_heads, width // num_heads, positions
        self.projection = Linear(width, 3 * width, generator=generator, bias=False)
        self.output = Linear(width, width, generator=generator, bias=False, gain=gain)
        self.norms = nn.ModuleList(RMSNorm(self.dim, device=generator.device) for _ in range(3 if qkv_norm else 0))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> SoftmaxState:
        """The state before any token: no keys, no values."""
        empty = torch.zeros(batch, 0, self.num_heads, self.dim, device=device, dtype=dtype)
        return SoftmaxState(empty, empty, torch.zeros(batch, dtype=torch.int64, device=device))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: SoftmaxState
    ) -> tuple[Float[Tensor, "batch time width"], SoftmaxState]:
        """Mix further tokens with all that the state holds."""
        steps = torch.arange(x.shape[1], device=x.device)
        q, k, v = self._heads(x, state.positions.unsqueeze(1) + steps)
        out, seen = softmax_attention(q, k, v, initial_state=KeysValues(state.keys, state.values))
        return self.output(out.flatten(2)), SoftmaxState(*seen, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        steps = torch.arange(x.shape[1], device=x.device).unsqueeze(0) if segments is None else positions_of(segments)
        q, k, v = self._heads(x, steps)
        out, _ = softmax_attention(q, k, v, segments=segments)
        return self.output(out.flatten(2))

    def scores(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch heads queries keys"]:
        """What the softmax of every head weighs keys by, -inf for keys after the query: for those who look inside."""
        q, k, _ = self._heads(x, torch.arange(x.shape[1], device=x.device).unsqueeze(0))
        table: Tensor = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.dim**-0.5
        return table.masked_fill(~visible(x.shape[1], x.shape[1], None, device=x.device), -torch.inf)

    def _heads(self, x: Tensor, steps: Int[Tensor, "rows time"]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.unflatten(self.projection(x), -1, (3, self.num_heads, self.dim)).unbind(2)
        if self.norms:
            q, k, v = (norm(one) for norm, one in zip(self.norms, (q, k, v), strict=True))
        if self.positions == "rotary":
            factors = turns(steps, self.dim, heads=self.num_heads, dtype=q.dtype)
            q, k = rotate(q, factors), rotate(k, factors)
        return q, k, v
