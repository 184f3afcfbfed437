"""A small network as a memory, learned by gradient descent with momentum and forgetting.

    S_t = eta_t S_{t-1} - theta_t sum_{t - window < i <= t} gamma_i  grad loss(A_t; k_i, v_i)
    M_t = f_t M_{t-1} + S_t,    o_t = M_t(q_t),    M(x) = x + W_2' s(W_1' x)  or, gated,  x + W_2' (s(W_1' x) * W_3' x)

With the squared loss and a window of 1 it is Titans' deep memory (Behrouz et al., arXiv:2501.00663); with the product
loss -M(k).v, deep linear attention, and with a window besides its sliding form (ATLAS, arXiv:2505.23735). A_t, where
the gradients are taken, is the memory before the first token of t's chunk. Sequences start from the fresh parts.

q, k, v, o: [batch, time, heads, dim]; theta, gamma, log f, log eta: [batch, time, heads]; fresh parts:
[1 or batch, heads, in, out], W_1 (and W_3) before W_2. See `contexture.ops.learned_memory` for the state.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.learned_memory import Learned, learn_chunked, learn_reference
from contexture.ops.memories import GatedNetwork, Loss, Network


def deep_memory(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads dim"],
    theta: Float[Tensor, "batch time heads"],
    gamma: Float[Tensor, "batch time heads"],
    log_keep: Float[Tensor, "batch time heads"],
    log_eta: Float[Tensor, "batch time heads"],
    *fresh: Float[Tensor, "rows heads num_in num_out"],
    loss: Loss = "squared",
    window: int = 1,
    chunk: int = 16,
    initial_state: Learned | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads dim"], Learned]:
    """Read a network after each step on the loss over a window; returns the outputs and the last state.

    Two fresh parts make a network of two layers, three one with gated hidden units. theta is the rate, gamma each
    token's weight, log_keep and log_eta the logarithms of what memory and momentum keep.

    >>> one, zero, weight = torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1), torch.ones(1, 1, 1, 1)
    >>> out = deep_memory(one, one, 2 * one, zero + 1, zero + 1, zero, zero - 9, weight, 0 * weight, chunk=1)[0]
    >>> [round(value, 3) for value in out.flatten().tolist()]
    [1.534, 2.112]
    """
    memory = GatedNetwork(loss) if len(fresh) == 3 else Network(loss)
    rule = {"memory": memory, "step": "descent", "window": window, "chunk": chunk, "fresh": fresh}
    held = {"log_eta": log_eta, "initial_state": initial_state, "segments": segments}
    out, state = dispatch.run(OP, q, k, v, theta, gamma, log_keep, keys=q.shape[1], **rule, **held)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    drawn = (torch.rand(batch, time, heads, generator=generator, dtype=torch.float64) for _ in range(4))
    theta, gamma, keep, eta = drawn
    logs = (1 - 0.2 * keep).log(), (0.1 + 0.4 * eta).log()
    shapes = ((1, heads, dim, 2 * dim), (1, heads, 2 * dim, dim))
    fresh = (0.3 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return q, k / k.norm(dim=-1, keepdim=True), v, 0.05 * theta, gamma, *logs, *fresh


OP = dispatch.Op(
    name="deep-memory",
    paths={"reference": learn_reference, "chunked": learn_chunked},
    call=deep_memory,
    sample=_sample,
)
