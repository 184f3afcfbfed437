"""Causal flow attention (Wu et al., 2022, Flowformer, arXiv:2202.06258).

Values flow from keys, the sources, to queries, the sinks; with q' = sigmoid(q) + epsilon and k' likewise, every
capacity q'_t.k'_s is positive.

    I_t = sum_{s <= t} q'_t.k'_s              what flows into sink t
    O_t = sum_{s <= t} k'_t.q'_s              what flows out of source t, into the sinks so far
    I^_t = sum_{s <= t} s q'_t.k'_s / (O_s t)      the same once every source gives one unit per position: conserved
    O^_t = sum_{s <= t} s k'_t.q'_s / (I_s t)      the same once every sink takes one unit per position
    c_t = t exp(O^_t) / sum_{s <= t} exp(O^_s)     competition among the sources so far (O^ cut off at 1)
    o_t = sigmoid(I^_t) sum_{s <= t} q'_t.k'_s c_s v_s / I_t     allocation

with positions t, s = 1, 2, ... as factors, since the sums of a prefix grow with it. The competition is the prefix form
of the authors' causal code: source s is weighed against the sources up to s itself, not against all those that sink t
sees. Its weight is therefore settled when it comes, which is what lets the past be a few sums: streaming is exact.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]. All is computed in fp32 at least. A change of segment
sets all sums and the position to zero.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import silence, wide
from contexture.ops.linear_attention import linear_attention_chunked, linear_attention_reference
from contexture.ops.segments import positions as positions_of

EPSILON = 1e-6


class FlowState(NamedTuple):
    """Sums over the past, in fp32, and the next position.

    flows, conserved: [batch, 2 * heads, dim, 1], of keys for the sinks and of queries for the sources; total:
    [batch, heads, 1, 1], of the exponentials; memory: [batch, heads, dim, out]; positions: int64 [batch].
    """

    flows: Tensor
    conserved: Tensor
    total: Tensor
    memory: Tensor
    positions: Tensor


def capacities(x: Tensor) -> Tensor:
    """Non-negative features: sigmoid(x), kept above zero."""
    return torch.sigmoid(x.to(wide(x.dtype))) + EPSILON


def _flow(
    sums: dispatch.Path, q: Tensor, k: Tensor, v: Tensor, *, initial_state: FlowState, segments: Tensor | None
) -> tuple[Tensor, FlowState]:
    """The formulas, with `sums` for the causal sums of products."""
    heads, dtype = q.shape[2], v.dtype
    state = initial_state
    sinks, sources, values = capacities(q), capacities(k), v.to(wide(dtype))
    if segments is None:
        steps = state.positions.unsqueeze(1) + torch.arange(q.shape[1], device=q.device)
    else:
        steps = positions_of(segments)
    count = (steps + 1).to(values.dtype)[:, :, None, None]
    # The flows of sinks and of sources are the same sums with the parts changed: one call, on twice the heads.
    readers, writers = torch.cat((sinks, sources), 2), torch.cat((sources, sinks), 2)
    flows, flows_after = sums(
        readers, writers, torch.ones_like(readers[..., :1]), initial_state=state.flows, segments=segments
    )
    flows = flows if segments is None else flows.masked_fill((segments < 0)[:, :, None, None], 1.0)
    inverse = (count / flows).roll(heads, 2)
    conserved, conserved_after = sums(readers, writers, inverse, initial_state=state.conserved, segments=segments)
    incoming, outgoing = torch.split(conserved / count, heads, dim=2)
    weight = torch.exp(outgoing.clamp(max=1.0))
    one = torch.ones_like(weight)
    total, total_after = sums(one, one, weight, initial_state=state.total, segments=segments)
    total = total if segments is None else total.masked_fill((segments < 0)[:, :, None, None], 1.0)
    competing = values * (count * weight / total)
    read = sinks / flows[:, :, :heads]
    out, memory_after = sums(read, sources, competing, initial_state=state.memory, segments=segments)
    out = silence(torch.sigmoid(incoming) * out, segments).to(dtype)
    after = FlowState(flows_after, conserved_after, total_after, memory_after, state.positions + q.shape[1])
    return out, after


def flow_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, *, initial_state: FlowState, segments: Tensor | None = None
) -> tuple[Tensor, FlowState]:
    """The definition, every sum one step after another."""
    return _flow(linear_attention_reference, q, k, v, initial_state=initial_state, segments=segments)


def flow_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, *, initial_state: FlowState, segments: Tensor | None = None
) -> tuple[Tensor, FlowState]:
    """Every sum in chunks, as linear attention."""
    return _flow(linear_attention_chunked, q, k, v, initial_state=initial_state, segments=segments)


def no_flow(batch: int, heads: int, dim: int, out: int, *, device: torch.device | str, dtype: torch.dtype) -> FlowState:
    """The state before any token."""
    held = wide(dtype)
    return FlowState(
        flows=torch.zeros(batch, 2 * heads, dim, 1, device=device, dtype=held),
        conserved=torch.zeros(batch, 2 * heads, dim, 1, device=device, dtype=held),
        total=torch.zeros(batch, heads, 1, 1, device=device, dtype=held),
        memory=torch.zeros(batch, heads, dim, out, device=device, dtype=held),
        positions=torch.zeros(batch, dtype=torch.int64, device=device),
    )


def flow_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    *,
    initial_state: FlowState | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], FlowState]:
    """Let values flow from sources to sinks; returns the outputs and the sums after them.

    >>> zero = torch.zeros(1, 2, 1, 1)
    >>> [round(x, 3) for x in flow_attention(zero, zero, zero + 1.0)[0].flatten().tolist()]
    [0.731, 0.731]
    """
    if initial_state is None:
        batch, _, heads, dim = q.shape
        initial_state = no_flow(batch, heads, dim, v.shape[3], device=v.device, dtype=v.dtype)
    out, state = dispatch.run(OP, q, k, v, keys=q.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))


OP = dispatch.Op(
    name="flow-attention",
    paths={"reference": flow_attention_reference, "chunked": flow_attention_chunked},
    call=flow_attention,
    sample=_sample,
)
