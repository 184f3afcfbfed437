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

A block of chunks passes through all steps at a time (`contexture.ops.chunk_blocks`): q, k: [chunks, batch, heads,
size, dim]; v, o: [..., out]; rate: [..., 1]; S: [batch, heads, dim, out]; all of one dtype, fp32 or fp64. The gradient
cannot be differentiated once more; that of the ops' reference paths can.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.ops.chunk_blocks import Factors, add_to, in_blocks, scaled
from contexture.ops.chunks import add_product, chunk_size, silence, wide

CHUNK = 32
ZERO = -1e3
"""A log-decay whose exp is zero even in fp64, so that -inf needs no care."""


def delta_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    initial_state: Tensor | None,
    segments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last memory of the delta rule, or of the gated one, with tensors laid out as the ops' are."""
    held = wide(v.dtype)
    rows = q, silence(k, segments), v, beta.unsqueeze(-1), *(() if log_decay is None else (log_decay.unsqueeze(-1),))

    def mix(rows: Sequence[Tensor], masks: Factors | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
        queries, keys, values, rate, *decay = rows
        total = decay[0].clamp(min=ZERO).cumsum(-2, dtype=torch.float64) if decay else None
        factors = _factors(total, masks, held) or (None,) * 4
        out, state = _DeltaChunks.apply(queries, keys, values, rate, state, total, *factors)  # type: ignore[no-untyped-call]
        return out, state

    size = chunk_size(q.shape[1], CHUNK)
    out, state = in_blocks(mix, rows, initial_state, size=size, segments=segments, dtype=held)
    return silence(out.to(v.dtype), segments), state


@torch.no_grad()
def _factors(total: Tensor | None, masks: Factors | None, dtype: torch.dtype) -> Factors | None:
    """exp of differences of the log-decays summed within chunks, times the masks.

    Differences are taken before exp, and only forward in time, so that nothing overflows; and in fp64, so that a decay
    near one is not lost beside others near zero.
    """
    if total is None:
        return masks
    last = total[..., -1:, :]
    logs = (total - total.mT).tril_(), total, last - total, last
    decays = Factors(*(x.to(dtype).exp() for x in logs))
    return decays if masks is None else Factors(*(one * other for one, other in zip(decays, masks, strict=True)))


def _inverse(triangle: Tensor) -> Tensor:
    """(I + tril(triangle, -1))^-1; what else `triangle` holds is not read."""
    eye = torch.eye(triangle.shape[-1], dtype=triangle.dtype, device=triangle.device)
    solved: Tensor = torch.linalg.solve_triangular(triangle, eye.expand_as(triangle), upper=False, unitriangular=True)
    return solved


def _scaled_state(state: Tensor, keeps: Tensor | None, n: int) -> Tensor:
    return state if keeps is None else state * keeps[n]


def _forward_scan(
    first: Tensor, errors: Tensor, erasers: Tensor, columns: Tensor, keeps: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The memory before every chunk, and the last; `errors` holds T V and becomes E; columns: (writes * rate * K)'."""
    state, states = first, []
    for n, (error, eraser, column) in enumerate(zip(errors.unbind(), erasers.unbind(), columns.unbind(), strict=True)):
        states.append(state)
        add_to(error, eraser, state, sign=-1)
        state = add_product(_scaled_state(state, keeps, n), column, error)
    return torch.stack(states), state


def _backward_scan(
    last: Tensor, d_news: Tensor, d_states: Tensor, erasers: Tensor, written: Tensor, keeps: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradient of the memory after every chunk, and of the first; `d_news` holds tril(..)' dO and becomes dU.

    d_states: (reads * Q)' dO; erasers: (rate * T (reads * K))'; written: writes * K.
    """
    d_state, afters = last, []
    parts = [x.unbind()[::-1] for x in (d_news, d_states, erasers, written)]
    for n, (d_new, d_read, eraser, rows) in enumerate(zip(*parts, strict=True), start=1):
        afters.append(d_state)
        add_to(d_new, rows, d_state)
        d_state = add_to(d_read + _scaled_state(d_state, keeps, -n), eraser, d_new, sign=-1)
    return torch.stack(afters[::-1]), d_state


class _DeltaChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rate: Tensor,
        first: Tensor | None,
        total: Tensor | None,
        within: Tensor | None,
        reads: Tensor | None,
        writes: Tensor | None,
        keeps: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        scores = scaled(q @ k.mT, within).tril_()
        overlaps = scaled(k @ k.mT, within).tril_(-1)
        solver = _inverse(overlaps * rate.mT)
        columns = (k * scaled(rate, writes)).mT
        errors, states, erasers = solver @ v, None, None
        if first is None and len(k) == 1:
            out, last = scores @ (errors * rate), (columns @ errors)[0]
        else:
            erasers = solver @ scaled(k, reads)
            first = v.new_zeros(*k.shape[1:3], k.shape[-1], v.shape[-1]) if first is None else first
            states, last = _forward_scan(first, errors, erasers, columns, keeps)
            out = add_to(scaled(q, reads) @ states, scores, errors * rate)
        ctx.save_for_backward(
            q, k, rate, scores, overlaps, solver, errors, states, erasers, within, reads, writes, keeps
        )
        return out, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        q, k, rate, scores, overlaps, solver, errors, states, erasers, within, reads, writes, keeps = ctx.saved_tensors
        d_out, news, written = d_out.contiguous(), errors * rate, scaled(k, writes)
        d_news, afters, d_first = scores.mT @ d_out, d_last.unsqueeze(0), None
        if states is None:
            add_to(d_news, written, afters)
        else:
            d_states = scaled(q, reads).mT @ d_out
            afters, d_first = _backward_scan(d_last, d_news, d_states, (erasers * rate).mT, written, keeps)
        d_values = solver.mT @ (d_news * rate)
        crossed = (d_values @ errors.mT).tril_(-1)
        shares, d_scores = crossed * overlaps, (d_out @ news.mT).tril_()
        d_rate = (d_news * errors).sum(-1, keepdim=True) - shares.sum(-2).unsqueeze(-1)
        d_overlaps = crossed.mul_(-rate.mT)
        d_keys, d_queries, d_total = scaled(news @ afters.mT, writes), None, None
        if ctx.needs_input_grad[5]:
            spread, left = (d_scores * scores).addcmul_(shares, rate.mT, value=-1), (d_keys * k).sum(-1, keepdim=True)
            d_total = (spread.sum(-1) - spread.sum(-2)).unsqueeze(-1) - left
            d_total[..., -1:, :] += left.sum(-2, keepdim=True)
        if states is not None:
            d_queries, d_erased = scaled(d_out @ states.mT, reads), scaled(d_values @ states.mT, reads)
            d_keys -= d_erased
            if d_total is not None:
                d_total += (d_queries * q - d_erased * k).sum(-1, keepdim=True)
                d_total[..., -1:, :] += keeps * (afters * states).sum((-2, -1), keepdim=True)
        d_scores, d_overlaps = scaled(d_scores, within), scaled(d_overlaps, within)
        d_queries = d_scores @ k if d_queries is None else add_to(d_queries, d_scores, k)
        add_to(add_to(d_keys, d_scores.mT, q), d_overlaps + d_overlaps.mT, k)
        d_first = d_first if ctx.needs_input_grad[4] else None
        return d_queries, d_keys, d_values, d_rate, d_first, d_total, None, None, None, None
