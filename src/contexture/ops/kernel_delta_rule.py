"""The delta rule in the features of the exponential, of which there are infinitely many (DoT; arXiv:2505.23735).

    M_t = M_{t-1} + beta_t phi(k_t) (v_t - M_{t-1}' phi(k_t))',    o_t = M_t' phi(q_t)
    phi(x).phi(y) = exp(sharpness (x.y - 1))

phi is the expansion of the exponential into all monomials, so the memory is written down by what was added at each key:

    u_t = beta_t (v_t - sum_{s < t} phi(k_t).phi(k_s) u_s),    o_t = sum_{s <= t} phi(q_t).phi(k_s) u_s,

a triangular system in u. Without the sum in u_t it would be attention with the softmax's weights, not normalised. Keys
of length one make features of length one.

q, k: [batch, time, heads, dim]; v, u, o: [batch, time, heads, out]; beta: [batch, time, heads]. The state is every key
and every u, in fp32 at least. A change of segment hides everything before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import in_parts, silence, too_long, wide
from contexture.ops.softmax_attention import visible

PART = 256
"""Tokens of a part: a smaller one leaves less of the table that nothing reads, and more calls."""


class KernelMemory(NamedTuple):
    """The keys seen, [batch, past, heads, dim], and what was added at each, [batch, past, heads, out]."""

    keys: Tensor
    changes: Tensor


def kernel_delta_rule_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    sharpness: float,
    initial_state: KernelMemory,
    segments: Tensor | None = None,
) -> tuple[Tensor, KernelMemory]:
    """The definition, one step after another."""
    (keys, changes), dtype = initial_state, v.dtype
    past = keys.shape[1]
    q, k, v, beta = (x.to(keys.dtype) for x in (q, k, v, beta))
    mask = visible(q.shape[1], past + q.shape[1], segments, device=q.device)[:, 0].to(keys.dtype)
    outputs = []

    def recall(x: Tensor, t: int) -> Tensor:
        weights = torch.exp(sharpness * (torch.einsum("bhd,bshd->bhs", x, keys) - 1))
        return torch.einsum("bhs,bshe->bhe", weights * mask[:, t, None, : keys.shape[1]], changes)

    for t in range(q.shape[1]):
        change = beta[:, t].unsqueeze(-1) * (v[:, t] - recall(k[:, t], t))
        keys, changes = torch.cat((keys, k[:, t : t + 1]), 1), torch.cat((changes, change.unsqueeze(1)), 1)
        outputs.append(recall(q[:, t], t))
    return silence(torch.stack(outputs, 1), segments).to(dtype), KernelMemory(keys, changes)


def kernel_delta_rule_products(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    sharpness: float,
    initial_state: KernelMemory,
    segments: Tensor | None = None,
) -> tuple[Tensor, KernelMemory]:
    """The table of weights and a triangular solve over time; long sequences part by part, each below all before it."""
    if too_long(k, segments, PART):

        def mix(part: Sequence[Tensor], before: KernelMemory) -> tuple[Tensor, KernelMemory]:
            q, k, v, beta = part
            return kernel_delta_rule_products(q, k, v, beta, sharpness=sharpness, initial_state=before)

        return in_parts(mix, (q, k, v, beta), initial_state, part=PART)
    (_, time, heads, _), dtype, held = q.shape, v.dtype, initial_state.keys.dtype
    past = initial_state.keys.shape[1]
    q, k, v, beta = (x.to(held).transpose(1, 2) for x in (q, k, v, beta.unsqueeze(-1)))
    keys = torch.cat((initial_state.keys.transpose(1, 2), k), 2)
    before = initial_state.changes.transpose(1, 2)
    hidden = ~visible(time, past + time, segments, device=q.device)
    bias = torch.full(hidden.shape, -sharpness, dtype=held, device=q.device).masked_fill(hidden, -torch.inf)
    bias = bias.squeeze(1) if segments is None else bias.expand(-1, heads, -1, -1).flatten(0, 1)
    columns = keys.mT.flatten(0, 1)

    def weights(rows: Tensor) -> Tensor:
        logits = torch.baddbmm(bias, rows.flatten(0, 1), columns, alpha=sharpness)
        return torch.unflatten(logits.exp(), 0, (-1, heads))

    overlaps = weights(k)
    sides = v - overlaps[..., :past] @ before if past else v
    own = beta * (overlaps[..., past:] if past else overlaps)
    changes = torch.linalg.solve_triangular(own, beta * sides, upper=False, unitriangular=True)
    changes = torch.cat((before, changes), 2)
    out = weights(q) @ changes
    state = KernelMemory(keys.transpose(1, 2), changes.transpose(1, 2))
    return silence(out.transpose(1, 2), segments).to(dtype), state


def kernel_delta_rule(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    beta: Float[Tensor, "batch time heads"],
    *,
    sharpness: float = 1.0,
    initial_state: KernelMemory | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], KernelMemory]:
    """Read a memory of exponential features after each correction; returns the outputs and the grown state.

    Stable for |k| = 1 and beta in [0, 2]; the greater `sharpness`, the less a key says of its neighbours.

    >>> one = torch.ones(1, 3, 1, 1)
    >>> kernel_delta_rule(one, one, one, 0.5 * one[..., 0])[0].flatten().tolist()
    [0.5, 0.75, 0.875]
    """
    if initial_state is None:
        empty = (x.new_zeros(x.shape[0], 0, *x.shape[2:], dtype=wide(v.dtype)) for x in (k, v))
        initial_state = KernelMemory(*empty)
    keywords = {"sharpness": sharpness, "initial_state": initial_state, "segments": segments}
    out, state = dispatch.run(OP, q, k, v, beta, keys=initial_state.keys.shape[1] + k.shape[1], **keywords)
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    beta = torch.rand(batch, time, heads, generator=generator, dtype=torch.float64)
    return q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True), v, beta


OP = dispatch.Op(
    name="kernel-delta-rule",
    paths={"reference": kernel_delta_rule_reference, "chunked": kernel_delta_rule_products},
    call=kernel_delta_rule,
    sample=_sample,
)
