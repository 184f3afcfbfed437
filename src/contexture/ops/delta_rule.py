"""The delta rule (Schlag et al., arXiv:2102.11174), in chunks by the WY form (Yang et al., arXiv:2406.06484).

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}' k_t)',    o_t = S_t' q_t

Over a chunk with rows Q, K, V, beta, let A = tril(diag(beta) K K', -1) and (I + A) [W, U] = diag(beta) [K, V]; then

    D = U - W S,    O = Q S + tril(Q K') D,    S <- S + K' D.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; beta: [batch, time, heads];
S: [batch, heads, dim, out]. The triangular solve and S are in fp32 at least. A change of segment sets S to zero.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import add_product, chunk_size, join, masks, no_memory, silence, split, wide
from contexture.ops.segments import runs

CHUNK = 64


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
    """A triangular solve inside chunks, two products per chunk between them.

    The solve reads nothing on or above the diagonal, so `overlaps` is A there and anything elsewhere.
    """
    time, dtype, held = q.shape[1], v.dtype, wide(v.dtype)
    size = chunk_size(time, CHUNK)
    queries, keys, values = split(q, size), split(silence(k, segments), size), split(v, size)
    rate = split(beta.unsqueeze(-1), size).to(held)
    scores = (queries @ keys.mT).tril_()
    overlaps = (keys @ keys.mT).to(held) * rate
    erased, written, kept = keys, keys, None
    if segments is not None:
        mask = masks(segments, size, dtype)
        scores, overlaps = scores * mask.within, overlaps * mask.within.to(held)
        queries, erased, written = queries * mask.reads, keys * mask.reads, keys * mask.writes
        kept = mask.keeps.to(held).unbind(2)
    columns = written.mT.to(held)
    if initial_state is None and keys.shape[2] == 1:
        changes = torch.linalg.solve_triangular(overlaps, values.to(held) * rate, upper=False, unitriangular=True)
        return silence(join(scores @ changes.to(dtype), time), segments), (columns @ changes).squeeze(2)
    sides = torch.cat((erased, values), -1).to(held) * rate
    solved = torch.linalg.solve_triangular(overlaps, sides, upper=False, unitriangular=True)
    erasers, news = solved.split((k.shape[-1], v.shape[-1]), -1)
    state, states, changes = no_memory(k, v) if initial_state is None else initial_state, [], []
    for n, (eraser, new, column) in enumerate(zip(erasers.unbind(2), news.unbind(2), columns.unbind(2), strict=True)):
        states.append(state)
        change = new - eraser @ state
        changes.append(change)
        state = column @ change + (state if kept is None else state * kept[n])
    recalled = queries @ torch.stack(states, 2).to(dtype)
    out = add_product(recalled, scores, torch.stack(changes, 2).to(dtype))
    return silence(join(out, time), segments), state


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
