"""The delta rule (Schlag et al., arXiv:2102.11174), in chunks by the WY form (Yang et al., arXiv:2406.06484).

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}' k_t)',    o_t = S_t' q_t

`contexture.ops.delta_chunks` has the chunked form, which the gated delta rule shares.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; beta: [batch, time, heads];
S: [batch, heads, dim, out], in fp32 at least. A change of segment sets S to zero.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import no_memory, silence
from contexture.ops.delta_chunks import delta_chunked
from contexture.ops.segments import runs


def delta_rule_reference(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    state = no_memory(k, v) if initial_state is None else initial_state
    outputs, dtype = [], v.dtype
    stretch = None if segments is None else runs(segments)
    q, k, v, beta = (x.to(state.dtype) for x in (q, silence(k, segments), v, beta))
    for t in range(q.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1, 1)
        error = v[:, t] - torch.einsum("bhd,bhde->bhe", k[:, t], state)
        state = state + torch.einsum("bh,bhd,bhe->bhde", beta[:, t], k[:, t], error)
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


def delta_rule_chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, *, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The WY form, in fp32 at least: bf16 products gain less than the conversions cost."""
    return delta_chunked(q, k, v, beta, initial_state=initial_state, segments=segments)


def delta_rule(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    beta: Float[Tensor, "batch time heads"],
    *,
    initial_state: Float[Tensor, "batch heads dim out"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Float[Tensor, "batch heads dim out"]]:
    """Read a memory after each value has been written over what its key recalled; returns outputs and last memory.

    Stable for |k| = 1 and beta in [0, 2].

    >>> one = torch.ones(1, 3, 1, 1)
    >>> delta_rule(one, one, one, 0.5 * one[..., 0])[0].flatten().tolist()
    [0.5, 0.75, 0.875]
    """
    out, state = dispatch.run(OP, q, k, v, beta, keys=q.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    beta = torch.rand(batch, time, heads, generator=generator, dtype=torch.float64)
    return q, k / k.norm(dim=-1, keepdim=True), v, beta


OP = dispatch.Op(
    name="delta-rule",
    paths={"reference": delta_rule_reference, "chunked": delta_rule_chunked},
    call=delta_rule,
    sample=_sample,
)
