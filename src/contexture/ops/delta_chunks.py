"""What both delta rules share: the chunked WY form (Yang et al., arXiv:2406.06484) with its gradient written out.

Over a chunk with rows Q, K, V, rates b and the memory S before it, and with factors of 0..1 for what decays and what
packed sequences forbid (`within`: between two rows; `reads`: from S to a row; `writes`: from a row to the chunk's end;
`keeps`: from S to the end):

    B = tril(within * K K', -1),    T = (I + B diag(b))^-1,    E = T V - (T (reads * K)) S,    U = diag(b) E
    O = (reads * Q) S + tril(within * Q K') U,    S <- keeps S + (writes * K)' U

E holds the error that each row finds, U what it writes. Backward, with dO and the dS of the chunk after:

    dU = tril(within * Q K')' dO + (writes * K) dS,    Y = T' diag(b) dU = dV
    dS <- keeps dS + (reads * Q)' dO - (reads * K)' Y

and the rest are products inside the chunk. T is formed: a product with it is faster than a solve with as many
right-hand sides as a head has entries, and backward needs it again. The gradient of the logarithm of a factor is the
factor times its own gradient, so that decays cost no division.

q, k: [batch, heads, chunks, size, dim]; v, o: [..., out]; rate: [..., 1]; S: [batch, heads, dim, out]; all of one
dtype, fp32 or fp64. The gradient cannot be differentiated once more; that of the ops' reference paths can.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.chunks import Masks


class Factors(NamedTuple):
    """within: [batch, heads or 1, chunks, size, size]; reads, writes: [..., size, 1]; keeps: [..., 1, 1]."""

    within: Tensor
    reads: Tensor
    writes: Tensor
    keeps: Tensor


@torch.no_grad()
def factors(decay: Tensor | None, masks: Masks | None) -> Factors | None:
    """exp of differences of the cumulative log-decay [batch, heads, chunks, size, 1], times the masks.

    Differences are taken before exp, and only forward in time, so that nothing overflows.
    """
    packed = None if masks is None else Factors(masks.within, masks.reads, masks.writes, masks.keeps)
    if decay is None:
        return packed
    last = decay[..., -1:, :]
    decays = Factors((decay - decay.mT).tril().exp(), decay.exp(), (last - decay).exp(), last.exp())
    return decays if packed is None else Factors(*(one * other for one, other in zip(decays, packed, strict=True)))


def delta_chunks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rate: Tensor,
    *,
    state: Tensor | None = None,
    decay: Tensor | None = None,
    masks: Masks | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs [batch, heads, chunks, size, out] and the last memory; decay: the sum of log-decays within its chunk."""
    given = factors(decay, masks) or (None,) * 4
    out, last = _DeltaChunks.apply(q, k, v, rate, state, decay, *given)  # type: ignore[no-untyped-call]
    return out, last


def _inverse(triangle: Tensor) -> Tensor:
    """(I + tril(triangle, -1))^-1; what else `triangle` holds is not read."""
    eye = torch.eye(triangle.shape[-1], dtype=triangle.dtype, device=triangle.device)
    return torch.linalg.solve_triangular(triangle, eye.expand_as(triangle), upper=False, unitriangular=True)


def _scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _add(added: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """added + left @ right, written over `added`."""
    added.flatten(0, 2).baddbmm_(left.flatten(0, 2), right.flatten(0, 2))
    return added


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    """[batch, heads, chunks, ...] to [batch * heads, ...] for every chunk."""
    return x.flatten(0, 1).unbind(1)


def _kept(keeps: Tensor | None, like: Tensor) -> tuple[Tensor | None, ...]:
    return (None,) * like.shape[2] if keeps is None else _chunks(keeps.expand(*like.shape[:3], 1, 1))


def _forward_scan(
    state: Tensor, news: Tensor, erasers: Tensor, columns: Tensor, keeps: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The memory before every chunk, the errors in it, and the last memory; columns: (writes * rate * K)'."""
    lead, state = state.shape[:2], state.flatten(0, 1)
    states, errors = [], []
    for new, eraser, column, kept in zip(*map(_chunks, (news, erasers, columns)), _kept(keeps, news), strict=True):
        states.append(state)
        errors.append(torch.baddbmm(new, eraser, state, alpha=-1))
        state = torch.baddbmm(_scaled(state, kept), column, errors[-1])
    return *(torch.stack(x, 1).unflatten(0, lead) for x in (states, errors)), state.unflatten(0, lead)


def _backward_scan(
    d_state: Tensor, d_news: Tensor, d_reads: Tensor, erasers: Tensor, written: Tensor, keeps: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the memory after every chunk, of what is written in it, and of the first memory.

    d_reads: (reads * Q)' dO; erasers: rate * T (reads * K); written: writes * K.
    """
    lead, d_state = d_state.shape[:2], d_state.flatten(0, 1)
    afters, found = [], []
    parts = *map(_chunks, (d_news, d_reads, erasers.mT, written)), _kept(keeps, d_news)
    for new, read, eraser, column, kept in zip(*(part[::-1] for part in parts), strict=True):
        afters.append(d_state)
        found.append(torch.baddbmm(new, column, d_state))
        d_state = torch.baddbmm(read, eraser, found[-1], alpha=-1).add_(_scaled(d_state, kept))
    return *(torch.stack(x[::-1], 1).unflatten(0, lead) for x in (afters, found)), d_state.unflatten(0, lead)


class _DeltaChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rate: Tensor,
        state: Tensor | None,
        decay: Tensor | None,
        within: Tensor | None,
        reads: Tensor | None,
        writes: Tensor | None,
        keeps: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        scores = _scaled(q @ k.mT, within).tril_()
        overlaps = _scaled(k @ k.mT, within).tril_(-1)
        solver = _inverse(overlaps * rate.mT)
        columns = (k * _scaled(rate, writes)).mT
        errors, states, erasers = solver @ v, None, None
        if state is None and k.shape[2] == 1:
            out, last = scores @ (errors * rate), (columns @ errors).squeeze(2)
        else:
            erasers = solver @ _scaled(k, reads)
            first = v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state
            states, errors, last = _forward_scan(first, errors, erasers, columns, keeps)
            out = _add(_scaled(q, reads) @ states, scores, errors * rate)
        ctx.save_for_backward(
            q, k, rate, scores, overlaps, solver, errors, states, erasers, within, reads, writes, keeps
        )
        ctx.has_state, ctx.decays = state is not None, decay is not None
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        q, k, rate, scores, overlaps, solver, errors, states, erasers, within, reads, writes, keeps = ctx.saved_tensors
        d_out = d_out.contiguous()
        news, written = errors * rate, _scaled(k, writes)
        d_news, d_first = scores.mT @ d_out, None
        if states is None:
            afters = d_last.unsqueeze(2)
            d_news = _add(d_news, written, afters)
        else:
            d_reads = _scaled(q, reads).mT @ d_out
            afters, d_news, d_first = _backward_scan(d_last, d_news, d_reads, erasers * rate, written, keeps)
        d_values = solver.mT @ (d_news * rate)
        crossed = (d_values @ errors.mT).tril_(-1)
        d_rate = (d_news * errors).sum(-1, keepdim=True) - (crossed * overlaps).sum(-2).unsqueeze(-1)
        d_overlaps, d_scores = crossed * -rate.mT, (d_out @ news.mT).tril_()
        d_keys, d_queries = _scaled(news @ afters.mT, writes), None
        d_decay = None
        if ctx.decays:
            spread = d_scores * scores + d_overlaps * overlaps
            left = (d_keys * k).sum(-1, keepdim=True)
            d_decay = (spread.sum(-1) - spread.sum(-2)).unsqueeze(-1) - left
            d_decay[..., -1:, :] += left.sum(-2, keepdim=True)
        if states is not None:
            d_queries = _scaled(d_out @ states.mT, reads)
            d_erased = _scaled(d_values @ states.mT, reads)
            d_keys -= d_erased
            if d_decay is not None:
                d_decay += (d_queries * q - d_erased * k).sum(-1, keepdim=True)
                d_decay[..., -1, :] += (keeps * afters * states).sum((-2, -1)).unsqueeze(-1)
        d_scores, d_overlaps = _scaled(d_scores, within), _scaled(d_overlaps, within)
        d_queries = d_scores @ k if d_queries is None else _add(d_queries, d_scores, k)
        _add(_add(d_keys, d_scores.mT, q), d_overlaps + d_overlaps.mT, k)
        return d_queries, d_keys, d_values, d_rate, d_first if ctx.has_state else None, d_decay, None, None, None, None
