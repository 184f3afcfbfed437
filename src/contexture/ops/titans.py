"""A matrix memory learned by gradient descent with momentum and forgetting (Titans; Behrouz et al., arXiv:2501.00663).

    G_t = k_t (A_t' k_t - v_t)'                       the gradient of |A' k - v|^2 / 2 at the anchor A_t
    S_t = eta_t S_{t-1} - theta_t G_t,    M_t = (1 - alpha_t) M_{t-1} + S_t,    o_t = M_t' q_t

The anchor A_t is the memory before the first token of t's chunk: with chunk = 1 it is M_{t-1}, and eta = alpha = 0 is
the delta rule; the paper trains with longer chunks. Any chunk has an exact form in blocks. Over a block with rows K and
Q, initial M, S and A, and errors e_t = v_t - A_t' k_t, where f = 1 - alpha,

    M_t = d_t M + h_t S + sum_s w_ts theta_s k_s e_s',    w = F H,  F_ts = f_{s+1} .. f_t,  H_ts = eta_{s+1} .. eta_t
    (I + tril(W * K K' diag(theta), -1)) e = V - (d' K) M - (h' K) S - (a' K) A

with row t of W and d', h' those of w and d, h at the last position before t's chunk; where that lies before the block,
a' = 1. The blocks are thus free of the chunks, which start anew with every segment.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; theta, log eta, log f: [batch, time, heads];
M, S, A: [batch, heads, dim, out] in fp32 at least.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.anchors import no_offset, places
from contexture.ops.chunks import Masks, add_product, chunk_size, join, masks, silence, split, wide
from contexture.ops.decay_products import between, since
from contexture.ops.segments import runs

BLOCK = 64


class MatrixMemory(NamedTuple):
    """A memory, its momentum and its anchor, each [batch, heads, dim, out], and the place in the chunk, [batch]."""

    memory: Tensor
    momentum: Tensor
    anchor: Tensor
    offset: Tensor


def empty_memory(
    batch: int, heads: int, dim: int, out: int, *, device: torch.device | str, dtype: torch.dtype
) -> MatrixMemory:
    """A memory of zeros at the start of a chunk, in fp32 at least."""
    zeros = torch.zeros(batch, heads, dim, out, device=device, dtype=wide(dtype))
    return MatrixMemory(zeros, zeros, zeros, no_offset(batch, device=device))


def titans_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    log_eta: Tensor,
    log_keep: Tensor,
    *,
    chunk: int,
    initial_state: MatrixMemory,
    segments: Tensor | None = None,
) -> tuple[Tensor, MatrixMemory]:
    """The definition, one step after another."""
    memory, momentum, anchor, offset = initial_state
    outputs, dtype, held = [], v.dtype, memory.dtype
    stretch = None if segments is None else runs(segments)
    place = places(q.shape[1], chunk, offset, segments)
    q, k, v, theta = (x.to(held) for x in (q, silence(k, segments), v, theta))
    eta, keep = log_eta.to(held).exp(), log_keep.to(held).exp()
    for t in range(q.shape[1]):
        if stretch is not None and t > 0:
            kept = (stretch[:, t] == stretch[:, t - 1]).to(held).view(-1, 1, 1, 1)
            memory, momentum, anchor = memory * kept, momentum * kept, anchor * kept
        anchor = torch.where((place[:, t] == 0).view(-1, 1, 1, 1), memory, anchor)
        error = v[:, t] - torch.einsum("bhd,bhde->bhe", k[:, t], anchor)
        write = torch.einsum("bh,bhd,bhe->bhde", theta[:, t], k[:, t], error)
        momentum = eta[:, t, :, None, None] * momentum + write
        memory = keep[:, t, :, None, None] * memory + momentum
        outputs.append(torch.einsum("bhd,bhde->bhe", q[:, t], memory))
    out = silence(torch.stack(outputs, 1), segments).to(dtype)
    return out, MatrixMemory(memory, momentum, anchor, (place[:, -1] + 1) % chunk)


class _Weights(NamedTuple):
    """How much of what each token of a block reads of each write of the block, and of the M, S and A before it.

    writes: [..., size, size], weight of the write at s (columns) in what t reads; before: [..., size, 3].
    """

    writes: Tensor
    before: Tensor


def _weights(log_eta: Tensor, log_keep: Tensor, real: Tensor, mask: Masks | None) -> tuple[_Weights, _Weights]:
    """What M_t and what S_t are made of; log_eta, log_keep, real: [..., size, 1], real zero at filled-up positions."""
    eta, keep = between(log_eta.squeeze(-1)), between(log_keep.squeeze(-1)) * real.mT
    reads = torch.ones_like(log_eta)
    if mask is not None:
        eta, keep, reads = eta * mask.within, keep * mask.within, reads * mask.reads
    of_memory = since(log_keep.squeeze(-1)).unsqueeze(-1) * reads
    of_momentum = since(log_eta.squeeze(-1)).unsqueeze(-1) * reads
    none = torch.zeros_like(of_memory)
    memory = _Weights(keep @ eta, torch.cat((of_memory, keep @ of_momentum, none), -1))
    return memory, _Weights(eta, torch.cat((none, of_momentum, none), -1))


def _at_anchors(memory: _Weights, place: Tensor, size: int, mask: Masks | None) -> _Weights:
    """What the anchors are made of: the weights of M at the last position before each token's chunk."""
    steps = torch.arange(place.shape[1], device=place.device)
    last = F.pad(steps - place - 1, (0, -place.shape[1] % size), mode="replicate")
    last = torch.unflatten(last, 1, (-1, size)).unsqueeze(1)
    last = last - size * torch.arange(last.shape[2], device=place.device).unsqueeze(-1)
    dtype = memory.writes.dtype
    chosen = (last.unsqueeze(-1) == torch.arange(size, device=place.device)).to(dtype)
    at_start, earlier = (last == -1).to(dtype).unsqueeze(-1), (last < -1).to(dtype).unsqueeze(-1)
    if mask is not None:
        chosen, at_start, earlier = chosen * mask.within, at_start * mask.reads, earlier * mask.reads
    outside = torch.cat((at_start, torch.zeros_like(at_start), earlier), -1)
    return _Weights(chosen @ memory.writes, chosen @ memory.before + outside)


def titans_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    log_eta: Tensor,
    log_keep: Tensor,
    *,
    chunk: int,
    initial_state: MatrixMemory,
    segments: Tensor | None = None,
) -> tuple[Tensor, MatrixMemory]:
    """A triangular solve inside blocks; between them, M, S and A pass as one matrix [3 * dim, out]."""
    (_, time, _, dim), dtype, held = q.shape, v.dtype, initial_state.memory.dtype
    size = chunk_size(time, BLOCK)
    place = places(time, chunk, initial_state.offset, segments)
    queries, keys, values = (split(x.to(held), size) for x in (q, silence(k, segments), v))
    rate, eta, keep = (split(x.unsqueeze(-1).to(held), size) for x in (theta, log_eta, log_keep))
    real = split(torch.ones(1, time, 1, 1, dtype=held, device=q.device), size)
    mask = None if segments is None else masks(segments, size, held)
    memory, momentum = _weights(eta, keep, real, mask)
    anchor = _at_anchors(memory, place, size, mask)

    written = keys * rate
    sides = torch.cat((values, _spread(anchor.before, keys)), -1)
    solved = torch.linalg.solve_triangular(anchor.writes * (keys @ written.mT), sides, upper=False, unitriangular=True)
    news, erasers = solved.split((values.shape[-1], 3 * dim), -1)
    ends = [(part.writes[..., -1, :], part.before[..., -1, :]) for part in (memory, momentum, anchor)]
    columns = torch.cat([written.mT * last.unsqueeze(-2) for last, _ in ends], -2)
    passed = torch.stack([before for _, before in ends], -2)

    state, states, errors = torch.cat(initial_state[:3], -2), [], []
    for new, eraser, column, share in zip(
        news.unbind(2), erasers.unbind(2), columns.unbind(2), passed.unbind(2), strict=True
    ):
        states.append(state)
        error = new - eraser @ state
        errors.append(error)
        carried = share @ torch.unflatten(state, 2, (3, dim)).flatten(3)
        state = column @ error + torch.unflatten(carried, 3, (dim, -1)).flatten(2, 3)
    recalled = _spread(memory.before, queries) @ torch.stack(states, 2)
    out = add_product(recalled, memory.writes * (queries @ written.mT), torch.stack(errors, 2))
    last = (place[:, -1] + 1) % chunk
    after = torch.split(state, [dim, dim, dim], dim=-2)
    return silence(join(out, time), segments).to(dtype), MatrixMemory(after[0], after[1], after[2], last)


def _spread(shares: Float[Tensor, "*lead size parts"], rows: Float[Tensor, "*lead size dim"]) -> Tensor:
    """The rows times each of their shares, side by side: [..., size, parts * dim]."""
    return (shares.unsqueeze(-1) * rows.unsqueeze(-2)).flatten(-2)


def titans(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    theta: Float[Tensor, "batch time heads"],
    log_eta: Float[Tensor, "batch time heads"],
    log_keep: Float[Tensor, "batch time heads"],
    *,
    chunk: int = 16,
    initial_state: MatrixMemory | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], MatrixMemory]:
    """Read a memory after each step of descent with momentum and forgetting; returns the outputs and the last state.

    theta is the rate, log_eta the logarithm of the momentum's decay, log_keep that of what is not forgotten. Gradients
    are taken at the start of chunks of `chunk` tokens; 1 takes each at the memory that its token finds.

    >>> one, zero = torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1)
    >>> titans(one, one, one, zero + 0.5, zero - torch.inf, zero, chunk=1)[0].flatten().tolist()
    [0.5, 0.75, 0.875]
    >>> titans(one, one, one, zero + 0.5, zero - torch.inf, zero, chunk=2)[0].flatten().tolist()
    [0.5, 1.0, 1.0]
    """
    if initial_state is None:
        batch, _, heads, dim = k.shape
        initial_state = empty_memory(batch, heads, dim, v.shape[3], device=k.device, dtype=v.dtype)
    out, state = dispatch.run(
        OP,
        q,
        k,
        v,
        theta,
        log_eta,
        log_keep,
        keys=q.shape[1],
        chunk=chunk,
        initial_state=initial_state,
        segments=segments,
    )
    return out, state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    q, k, v = (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    theta, eta, keep = (torch.rand(batch, time, heads, generator=generator, dtype=torch.float64) for _ in range(3))
    return q, k / k.norm(dim=-1, keepdim=True), v, 0.2 * theta, (0.1 + 0.8 * eta).log(), (1 - 0.2 * keep).log()


OP = dispatch.Op(
    name="titans",
    paths={"reference": titans_reference, "chunked": titans_chunked},
    call=titans,
    sample=_sample,
)
