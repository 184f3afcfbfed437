"""A matrix memory under the Omega rule of OmegaNet (Behrouz et al., 2025, ATLAS, arXiv:2505.23735).

    M_t = f_t M_{t-1} + theta_t sum_{t - window < i <= t} gamma_i k_i (v_i - A_t' k_i)',    o_t = M_t' q_t

The anchor A_t is the memory before the first token of t's chunk; with chunk = 1 it is M_{t-1}, and window = 1, f = 1
besides is the delta rule.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; theta, gamma, log f: [batch, time, heads]; M:
[batch, heads, dim, out] in fp32 at least. See `contexture.ops.learned_memory` for the state and the form in chunks.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import no_memory
from contexture.ops.learned_memory import Learned, learn_chunked, learn_reference
from contexture.ops.memories import Loss, Matrix


def omega(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    theta: Float[Tensor, "batch time heads"],
    gamma: Float[Tensor, "batch time heads"],
    log_keep: Float[Tensor, "batch time heads"],
    *,
    window: int = 16,
    chunk: int = 16,
    loss: Loss = "squared",
    initial_state: Learned | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], Learned]:
    """Read a memory after each step on the loss over the last `window` tokens; returns the outputs and the last state.

    theta is the rate, gamma each token's weight, log_keep the logarithm of what is not forgotten. Gradients are taken
    at the start of chunks of `chunk` tokens.

    >>> one, zero = torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1)
    >>> omega(one, one, one, zero + 0.25, zero + 1, zero, window=2, chunk=1)[0].flatten().tolist()
    [0.25, 0.625, 0.8125]
    """
    rule = {"memory": Matrix(loss), "step": "descent", "window": window, "chunk": chunk}
    fresh = (no_memory(k[:1], v[:1]),)
    held = {"fresh": fresh, "log_eta": None, "initial_state": initial_state, "segments": segments}
    out, state = dispatch.run(OP, q, k, v, theta, gamma, log_keep, keys=q.shape[1], **rule, **held)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    theta, gamma, keep = (torch.rand(batch, time, heads, generator=generator, dtype=torch.float64) for _ in range(3))
    return q, k / k.norm(dim=-1, keepdim=True), v, 0.02 * theta, gamma, (1 - 0.2 * keep).log()


OP = dispatch.Op(
    name="omega",
    paths={"reference": learn_reference, "chunked": learn_chunked},
    call=omega,
    sample=_sample,
)
