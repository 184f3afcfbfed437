"""Flow attention as a causal layer (Wu et al., 2022, Flowformer, arXiv:2202.06258).

    q, k, v = x W_q, x W_k, x W_v;    y = concat over heads of flow_attention(q, k, v) W_o

x: [batch, time, width]; heads: [batch, time, num_heads, dim]. The formulas, and the prefix form of the competition:
`contexture.ops.flow_attention`. The state is its sums, of constant size. For sets: `contexture.mixers.flow_attention`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.mixers.heads import Heads
from contexture.ops.flow_attention import FlowState, flow_attention, no_flow
from contexture.protocols import MixerCard


class Flowformer(nn.Module):
    """Attention that conserves flow: sources compete for sinks, and sinks take what is allocated to them."""

    card = MixerCard(
        name="flowformer",
        summary="Linear attention made selective by conserving what flows out of keys and into queries.",
        paper="Wu et al., Flowformer: Linearizing Transformers with Conservation Flows, arXiv:2202.06258",
        year=2022,
        state="constant",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> FlowState:
        """No flow yet."""
        heads = self.heads
        return no_flow(batch, heads.num_heads, heads.dim, heads.dim, device=device, dtype=dtype)

    def stream(
        self, x: Float[Tensor, "batch time width"], state: FlowState
    ) -> tuple[Float[Tensor, "batch time width"], FlowState]:
        """Mix further tokens with the sums in the state."""
        out, after = flow_attention(*self.heads.split(x), initial_state=state)
        return self.heads.join(out), after

    def forward(
        self, x: Float[Tensor, "batch time width"], *, segments: Int[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time width"]:
        """Mix a whole sequence."""
        return self.heads.join(flow_attention(*self.heads.split(x), segments=segments)[0])
