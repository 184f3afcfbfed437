"""ATLAS's rule: the Omega rule with momentum and orthogonalised steps (Behrouz et al., 2025, arXiv:2505.23735).

    S_t = eta_t S_{t-1} + theta_t sum_{t - window < i <= t} gamma_i k_i (v_i - A_t' k_i)'
    M_t = f_t M_{t-1} + newton_schulz(S_t),    o_t = M_t' q_t

The anchor A_t is the memory before the first token of t's chunk. The paper orthogonalises every S_t (`every="token"`);
`every="chunk"` does so at the last token of each chunk alone, and adds nothing to the memory before: a token reads what
whole chunks have written.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; theta, gamma, log f, log eta: [batch, time, heads]; M,
S, A: [batch, heads, dim, out] in fp32 at least. See `contexture.ops.learned_memory` for the state.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import no_memory
from contexture.ops.learned_memory import Learned, learn_chunked, learn_reference
from contexture.ops.memories import Matrix


def atlas(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    theta: Float[Tensor, "batch time heads"],
    gamma: Float[Tensor, "batch time heads"],
    log_keep: Float[Tensor, "batch time heads"],
    log_eta: Float[Tensor, "batch time heads"],
    *,
    every: Literal["token", "chunk"] = "chunk",
    window: int = 16,
    chunk: int = 16,
    initial_state: Learned | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Learned]:
    """Read a memory after orthogonalised steps on the loss over a window; returns the outputs and the last state.

    theta is the rate, gamma each token's weight, log_keep and log_eta the logarithms of what memory and momentum keep.

    >>> one, zero = torch.ones(1, 4, 1, 1).double(), torch.zeros(1, 4, 1).double()
    >>> out = atlas(one, one, one, zero + 1, zero + 1, zero, zero - torch.inf, window=1, chunk=2)[0]
    >>> [round(value, 2) for value in out.flatten().tolist()]
    [0.0, 0.7, 0.7, 1.39]
    """
    rule = {"memory": Matrix(), "step": "orthogonal" if every == "token" else "orthogonal-chunk"}
    sizes = {"window": window, "chunk": chunk, "fresh": (no_memory(k[:1], v[:1]),)}
    held = {"log_eta": log_eta, "initial_state": initial_state, "segments": segments}
    out, state = dispatch.run(OP, q, k, v, theta, gamma, log_keep, keys=q.shape[1], **rule, **sizes, **held)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    drawn = (torch.rand(batch, time, heads, generator=generator, dtype=torch.float64) for _ in range(4))
    theta, gamma, keep, eta = drawn
    logs = (1 - 0.2 * keep).log(), (0.7 + 0.2 * eta).log()
    return q, k / k.norm(dim=-1, keepdim=True), 8 * v, 0.1 + theta, 0.5 + gamma, *logs


OP = dispatch.Op(
    name="atlas",
    paths={"reference": learn_reference, "chunked": learn_chunked},
    call=atlas,
    sample=_sample,
)
