"""Grouped-query attention (Ainslie et al., 2023, arXiv:2305.13245).

    y_t = concat over heads h of  sum_{s <= t} softmax_s(q_th.k_sg / sqrt(dim)) v_sg,  times W_o,    g = h // group

where group = num_heads / num_kv_heads: neighbouring heads ask the same keys and values. num_kv_heads = 1 is multi-query
attention (Shazeer, 2019, arXiv:1911.02150), num_kv_heads = num_heads is multi-head attention.
x: [batch, time, width]; q: [batch, time, num_heads, dim]; k, v: [batch, time, num_kv_heads, dim]. The state is every
key and value seen so far, smaller than multi-head attention's by the factor `group`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.mixers.positioned_heads import PositionedHeads, Positions, steps_after, steps_of
from contexture.mixers.softmax import SoftmaxState
from contexture.ops.softmax_attention import KeysValues, softmax_attention
from contexture.protocols import MixerCard


class GroupedQuery(nn.Module):
    """Softmax attention in which several heads share one head of keys and values.

    `num_kv_heads` is half of the heads unless given (all of an odd number's, one for each).

    >>> mixer = GroupedQuery(8, num_heads=4, num_kv_heads=1, generator=torch.Generator().manual_seed(0))
    >>> mixer.stream(torch.ones(1, 3, 8), mixer.init_state(1, device="cpu", dtype=torch.float32))[1].keys.shape
    torch.Size([1, 3, 1, 2])
    """

    card = MixerCard(
        name="grouped-query",
        summary="Softmax attention whose heads share keys and values in groups, for a smaller state.",
        paper="Ainslie et al., GQA: Training Generalized Multi-Query Transformer Models, arXiv:2305.13245",
        year=2023,
        state="grows",
        cost="quadratic",
    )

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        generator: torch.Generator,
        num_kv_heads: int | None = None,
        positions: Positions = "rotary",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        shared = num_heads // 2 if num_heads % 2 == 0 else num_heads
        self.heads = PositionedHeads(
            width,
            num_heads=num_heads,
            num_kv_heads=shared if num_kv_heads is None else num_kv_heads,
            positions=positions,
            generator=generator,
            gain=gain,
        )

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> SoftmaxState:
        """The state before any token: no keys, no values."""
        empty = torch.zeros(batch, 0, self.heads.num_kv_heads, self.heads.dim, device=device, dtype=dtype)
        return SoftmaxState(empty, empty, torch.zeros(batch, dtype=torch.int64, device=device))

    def stream(
        self, x: Float[Tensor, "batch time width"], state: SoftmaxState
    ) -> tuple[Float[Tensor, "batch time width"], SoftmaxState]:
        """Mix further tokens with all that the state holds."""
        q, k, v = self.heads.split(x, steps_after(x, state.positions))
        past = KeysValues(state.keys, state.values)
        out, seen = softmax_attention(q, k, v, slopes=self.heads.slopes, initial_state=past)
        return self.heads.join(out), SoftmaxState(*seen, state.positions + x.shape[1])

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        q, k, v = self.heads.split(x, steps_of(x, segments))
        out, _ = softmax_attention(q, k, v, slopes=self.heads.slopes, segments=segments)
        return self.heads.join(out)
