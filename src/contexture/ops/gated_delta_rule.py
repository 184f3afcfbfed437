"""The gated delta rule (Yang et al., arXiv:2412.06464): a memory that decays as a whole and overwrites by key.

    S_t = a_t (I - beta_t k_t k_t') S_{t-1} + beta_t k_t v_t',    a_t = exp(g_t),    o_t = S_t' q_t

which is the delta rule on the decayed memory: S_t = a_t S_{t-1} + beta_t k_t (v_t - a_t S_{t-1}' k_t)'. With g = 0 it
is the delta rule, with a key orthogonal to all others scalar-gated linear attention. `contexture.ops.delta_chunks`
has the chunked form; decays enter it as exp of differences of summed log-decays, which never exceed one.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; beta, g: [batch, time, heads], g <= 0;
S: [batch, heads, dim, out], in fp32 at least. A change of segment sets S to zero.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import no_memory, silence
from contexture.ops.delta_chunks import delta_chunked
from contexture.ops.segments import runs


def gated_delta_rule_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    *,
    initial_state: Tensor | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    state = no_memory(k, v) if initial_state is None else initial_state
    outputs, dtype = [], v.dtype
    stretch = None if segments is None else runs(segments)
    q, k, v, beta, g = (x.to(state.dtype) for x in (q, silence(k, segments), v, beta, g))
    for t in range(q.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1, 1)
        state = state * g[:, t].exp()[..., None, None]
        error = v[:, t] - torch.einsum("bhd,bhde->bhe", k[:, t], state)
        state = state + torch.einsum("bh,bhd,bhe->bhde", beta[:, t], k[:, t], error)
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], state))
    return silence(torch.stack(outputs, 1), segments).to(dtype), state


def gated_delta_rule_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    *,
    initial_state: Tensor | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The WY form, in fp32 at least."""
    return delta_chunked(q, k, v, beta, g, initial_state=initial_state, segments=segments)


def gated_delta_rule(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    beta: Float[Tensor, "batch time heads"],
    g: Float[Tensor, "batch time heads"],
    *,
    initial_state: Float[Tensor, "batch heads dim out"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Float[Tensor, "batch heads dim out"]]:
    """Read a memory after it has decayed by exp(g) and the value been written over what its key recalled.

    Returns outputs and last memory. Stable for |k| = 1, beta in [0, 2] and g <= 0.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> half = 0.5 * one[..., 0]
    >>> gated_delta_rule(one, one, one, half, half.log())[0].flatten().tolist()
    [0.5, 0.625, 0.65625]
    """
    out, state = dispatch.run(OP, q, k, v, beta, g, keys=q.shape[1], initial_state=initial_state, segments=segments)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    beta, a = (torch.rand(batch, time, heads, generator=generator, dtype=torch.float64) for _ in range(2))
    return q, k / k.norm(dim=-1, keepdim=True), v, beta, a.log()


OP = dispatch.Op(
    name="gated-delta-rule",
    paths={"reference": gated_delta_rule_reference, "chunked": gated_delta_rule_chunked},
    call=gated_delta_rule,
    sample=_sample,
)
