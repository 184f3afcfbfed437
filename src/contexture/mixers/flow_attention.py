"""Flow attention among the members of a set (Wu et al., 2022, Flowformer, arXiv:2202.06258).

Values flow from keys, the sources, to queries, the sinks; q' = sigmoid(q) + epsilon, k' likewise; n members.

    I_i = sum_j q'_i.k'_j    (into sink i)             O_j = sum_i k'_j.q'_i    (out of source j)
    I^_i = sum_j q'_i.k'_j / O_j                       O^_j = sum_i k'_j.q'_i / I_i    (conserved)
    y_i = sigmoid(I^_i) sum_j (q'_i.k'_j / I_i) n softmax_j(O^) v_j

Beside a context its members alone are the sources, and alone decide how these compete: they are each other's sinks. An
item that asks is one more sink and takes nothing from the others, so that its answer does not depend on who else asks.

x: [sets, items, width]; heads: [sets, items, num_heads, dim]. Sums over members make the cost linear. For sequences:
`contexture.mixers.flowformer`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contexture.errors import InputError
from contexture.mixers.heads import Heads
from contexture.ops.flow_attention import capacities
from contexture.protocols import MixerCard


class FlowAttention(nn.Module):
    """Attention that conserves flow between all members of a set, at linear cost.

    >>> mixer = FlowAttention(8, num_heads=2, generator=torch.Generator().manual_seed(0))
    >>> mixer(torch.ones(1, 3, 8)).shape
    torch.Size([1, 3, 8])
    """

    card = MixerCard(
        name="flow-attention",
        summary="Members of a set attend to each other by conserved flow, at linear cost.",
        paper="Wu et al., Flowformer: Linearizing Transformers with Conservation Flows, arXiv:2202.06258",
        year=2022,
        causal=False,
        state="none",
        cost="linear",
    )

    def __init__(self, width: int, *, num_heads: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        self.heads = Heads(width, num_heads=num_heads, generator=generator, gain=gain)

    def forward(
        self,
        x: Float[Tensor, "sets items width"],
        *,
        context: Float[Tensor, "sets members width"] | None = None,
        segments: Int[Tensor, "sets items"] | None = None,
    ) -> Float[Tensor, "sets items width"]:
        """The items x receive from `context`, or from each other.

        Raises InputError if `segments` is given: sets are told apart by their axis already.
        """
        if segments is not None:
            raise InputError("flow attention works set by set and takes no segments")
        asked, _, _ = self.heads.split(x)
        q, k, v = self.heads.split(x if context is None else context)
        # [sets, heads, members, dim]
        sinks, members, sources, values = (
            part.transpose(1, 2) for part in (capacities(asked), capacities(q), capacities(k), v)
        )
        given = members / _flow(members, sources)
        taken = sources / _flow(sources, members)
        outgoing = _flow(sources, given)
        weights = outgoing.softmax(-2) * outgoing.shape[-2]
        carried = (sinks / _flow(sinks, sources)) @ (sources.mT @ (values.to(weights.dtype) * weights))
        out = torch.sigmoid(_flow(sinks, taken)) * carried
        return self.heads.join(out.transpose(1, 2).to(x.dtype))


def _flow(
    read: Float[Tensor, "sets heads items dim"], written: Float[Tensor, "sets heads members dim"]
) -> Float[Tensor, "sets heads items 1"]:
    """The sum of read.written over all that is written."""
    return read @ written.sum(-2, keepdim=True).mT
