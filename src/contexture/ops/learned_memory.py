"""A memory updated by an inner optimiser on an inner loss, while it is read.

    G_t = sum_{t - window < i <= t} gamma_i  grad loss(A_t; k_i, v_i)         the Omega rule (arXiv:2505.23735)
    momentum     S_t = eta_t S_{t-1} - theta_t G_t
    memory       M_t = f_t M_{t-1} + step(S_t),          o_t = M_t(q_t)

The memory is a matrix or a small network (`contexture.ops.memories`), and G, S and M have its parts. The anchor A_t is
the memory before the first token of t's chunk: the chunk is part of the mechanism, and 1 makes it M_{t-1}. The state
carries the anchor, the last window - 1 tokens and the place in the chunk, so that a sequence may be cut anywhere.

Steps: `descent` takes S_t as it is. `orthogonal` takes it made nearly orthogonal by Newton-Schulz iterations (Muon).
`orthogonal-chunk` does that once a chunk: step(S_t) is zero but at the chunk's last token, so reads see whole chunks.

q, k: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; theta, gamma, log f, log eta: [batch, time, heads];
parts of M, S, A: [batch, heads, in, out] in fp32 at least. Without log eta there is no momentum, and no S in the state.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.ops import opaque
from contexture.ops.anchors import even_windows, no_offset, places, windows
from contexture.ops.chunks import silence, wide
from contexture.ops.inner_steps import STEPS, Step, pushed_by, weights_of
from contexture.ops.memories import MEMORIES, Memory, Parts, Product, total_loss
from contexture.ops.newton_schulz import orthogonalised
from contexture.ops.segments import runs


class Learned(NamedTuple):
    """A memory's parts, their momentum if any, the anchor's parts, the tokens before, and the place in the chunk.

    keys: [batch, window - 1, heads, dim]; values: [.., out]; gammas: [.., 1], zero where there was no token; offset:
    int64 [batch].
    """

    memory: Parts
    momentum: Parts
    anchor: Parts
    keys: Tensor
    values: Tensor
    gammas: Tensor
    offset: Tensor


def unlearned(
    fresh: Parts, batch: int, *, dim: int, out: int, window: int, momentum: bool, device: torch.device | str
) -> Learned:
    """A memory that has seen nothing: the fresh parts, [batch or 1, heads, in, out], and no tokens."""
    parts = tuple(part.expand(batch, -1, -1, -1) for part in fresh)
    past = torch.zeros(batch, window - 1, fresh[0].shape[1], dim + out + 1, dtype=parts[0].dtype, device=device)
    keys, values, gammas = torch.split(past, [dim, out, 1], dim=-1)
    still = tuple(torch.zeros_like(part) for part in parts) if momentum else ()
    return Learned(parts, still, parts, keys, values, gammas, no_offset(batch, device=device))


def learn_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    gamma: Tensor,
    log_keep: Tensor,
    *,
    log_eta: Tensor | None,
    fresh: Parts,
    memory: Memory,
    step: Step,
    chunk: int,
    window: int,
    initial_state: Learned | None,
    segments: Tensor | None,
) -> tuple[Tensor, Learned]:
    """The definition, one step after another, with gradients of the loss by automatic differentiation."""
    (batch, time), dtype, held = q.shape[:2], v.dtype, wide(v.dtype)
    fresh = tuple(part.to(held) for part in fresh)
    state = _begin(q, v, log_eta, fresh, window, initial_state)
    place = places(time, chunk, state.offset, segments)
    stretch = torch.zeros_like(place) if segments is None else runs(segments)
    q, k, v, theta, log_keep = (x.to(held) for x in (q, k, v, theta, log_keep))
    keep = log_keep.exp()
    eta = None if log_eta is None else log_eta.to(held).exp()
    keys, values, gammas = _lengthened(state, k, v, gamma.to(held), segments)
    owners = torch.cat((stretch.new_zeros(batch, window - 1), stretch), 1)
    parts, momentum, anchor, outputs = state.memory, state.momentum, state.anchor, []
    for t in range(time):
        if t > 0:
            begin = stretch[:, t] != stretch[:, t - 1]
            parts = _where(begin, fresh, parts)
            momentum = tuple(torch.where(begin.view(-1, 1, 1, 1), 0.0, part) for part in momentum)
        anchor = _where(place[:, t] == 0, parts, anchor)
        seen = slice(t, t + window)
        weight = gammas[:, seen] * (owners[:, seen] == owners[:, seen][:, -1:])[:, :, None, None]
        rows = keys[:, seen].transpose(1, 2), values[:, seen].transpose(1, 2), weight.transpose(1, 2)
        gradient = torch.func.grad(partial(_loss, memory, rows))(anchor)
        pushed = tuple(-theta[:, t, :, None, None] * part for part in gradient)
        if eta is not None:
            momentum = tuple(eta[:, t, :, None, None] * s + p for s, p in zip(momentum, pushed, strict=True))
            pushed = momentum
        if step != "descent":
            pushed = tuple(orthogonalised(part) for part in pushed)
        if step == "orthogonal-chunk":
            pushed = tuple(part * (place[:, t] == chunk - 1).view(-1, 1, 1, 1) for part in pushed)
        parts = tuple(keep[:, t, :, None, None] * m + p for m, p in zip(parts, pushed, strict=True))
        read = memory.read(partial(_times, parts), q[:, t].unsqueeze(2))
        outputs.append(read.squeeze(2))
    past = _past(keys, values, gammas, window, segments)
    out = silence(torch.stack(outputs, 1), segments).to(dtype)
    return out, Learned(parts, momentum, anchor, *past, (place[:, -1] + 1) % chunk)


def learn_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    theta: Tensor,
    gamma: Tensor,
    log_keep: Tensor,
    *,
    log_eta: Tensor | None,
    fresh: Parts,
    memory: Memory,
    step: Step,
    chunk: int,
    window: int,
    initial_state: Learned | None,
    segments: Tensor | None,
) -> tuple[Tensor, Learned]:
    """Chunk after chunk, each in a few products; compiled, packed sequences are one node of the graph."""
    if segments is not None and torch.compiler.is_compiling():
        rule = f"{type(memory).__name__} {memory.loss} {step} {chunk} {window} {len(fresh)}"
        before = () if initial_state is None else _flat(initial_state)
        inputs = (segments, q, k, v, theta, gamma, log_keep, *(() if log_eta is None else (log_eta,)), *fresh, *before)
        counts = f"{int(log_eta is not None)} {int(initial_state is not None)}"
        out, *flat = opaque.call("learn", inputs, f"{rule} {counts}")
        return out, _nested(flat, parts=len(fresh), momentum=log_eta is not None)
    time, dtype, held = q.shape[1], v.dtype, wide(v.dtype)
    fresh = tuple(part.to(held) for part in fresh)
    state = _begin(q, v, log_eta, fresh, window, initial_state)
    if initial_state is None and segments is None:
        cut = even_windows(time, chunk, window - 1, device=q.device)
    else:
        cut = windows(time, chunk, window - 1, state.offset, segments)
    q, k, v, theta, log_keep = (x.to(held) for x in (q, k, v, theta, log_keep))
    keys, values, gammas = _lengthened(state, k, v, gamma.to(held), segments)
    weights = weights_of(cut, theta, gammas.squeeze(-1), log_keep, None if log_eta is None else log_eta.to(held))
    chunks = (x.transpose(2, 3).unbind(1) for x in (cut.own(q), cut.cut(keys), cut.cut(values)))

    parts, momentum, anchor, outputs = state.memory, state.momentum, state.anchor, []
    starts = (state.offset == 0).unsqueeze(1) | (torch.arange(len(weights), device=q.device) > 0)
    starts = starts & cut.real[..., cut.past]
    turns = zip(weights, starts.unbind(1), cut.begins.unbind(1), strict=True)
    for query, key, value, (weight, start, begin) in zip(*chunks, turns, strict=True):
        if segments is not None:
            parts = _where(begin, fresh, parts)
            momentum = tuple(torch.where(begin.view(-1, 1, 1, 1), 0.0, part) for part in momentum)
        anchor = parts if cut.start is None else _where(start, parts, anchor)
        factors = memory.errors(anchor, key, value)
        moving = momentum or (None,) * len(parts)
        steps = [STEPS[step](*one, weight) for one in zip(parts, moving, factors, strict=True)]
        outputs.append(memory.read(partial(_chosen, tuple(product for product, _ in steps)), query))
        parts = tuple(after for _, after in steps)
        momentum = tuple(pushed_by(*one, weight) for one in zip(momentum, factors, strict=bool(momentum)))
    out = cut.paste(torch.stack(outputs, 1).transpose(2, 3))
    place = places(time, chunk, state.offset, segments)
    past = _past(keys, values, gammas, window, segments)
    return silence(out, segments).to(dtype), Learned(parts, momentum, anchor, *past, (place[:, -1] + 1) % chunk)


def _loss(memory: Memory, rows: tuple[Tensor, Tensor, Tensor], parts: Parts) -> Tensor:
    return total_loss(memory, parts, *rows)


def _times(parts: Parts, part: int, rows: Tensor) -> Tensor:
    return rows @ parts[part]


def _chosen(products: tuple[Product, ...], part: int, rows: Tensor) -> Tensor:
    return products[part](part, rows)


def _begin(
    q: Tensor, v: Tensor, log_eta: Tensor | None, fresh: Parts, window: int, initial_state: Learned | None
) -> Learned:
    if initial_state is not None:
        return initial_state
    sizes = {"dim": q.shape[-1], "out": v.shape[-1], "window": window}
    return unlearned(fresh, q.shape[0], **sizes, momentum=log_eta is not None, device=q.device)


def _lengthened(
    state: Learned, k: Tensor, v: Tensor, gamma: Tensor, segments: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and gammas with those of the tokens before."""
    pairs = ((state.keys, k), (state.values, v), (state.gammas, silence(gamma.unsqueeze(-1), segments)))
    keys, values, gammas = (torch.cat(pair, 1) for pair in pairs)
    return keys, values, gammas


def _past(
    keys: Tensor, values: Tensor, gammas: Tensor, window: int, segments: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The last window - 1 tokens; those of earlier sequences have no weight."""
    first = keys.shape[1] - window + 1
    gammas = gammas[:, first:]
    if segments is not None:
        stretch = F.pad(runs(segments), (window - 1, 0))[:, first:]
        gammas = gammas * (stretch == stretch[:, -1:])[:, :, None, None].to(gammas.dtype)
    return keys[:, first:], values[:, first:], gammas


def _where(condition: Tensor, parts: Parts, others: Parts) -> Parts:
    """One or the other for each entry of the batch."""
    return tuple(torch.where(condition.view(-1, 1, 1, 1), *pair) for pair in zip(parts, others, strict=True))


def _flat(state: Learned) -> tuple[Tensor, ...]:
    return (*state.memory, *state.momentum, *state.anchor, *state[3:])


def _nested(flat: Sequence[Tensor], *, parts: int, momentum: bool) -> Learned:
    sizes = (parts, parts * momentum, parts)
    edges = (0, *accumulate(sizes))
    memory, still, anchor = (tuple(flat[start:stop]) for start, stop in pairwise(edges))
    keys, values, gammas, offset = flat[edges[-1] :]
    return Learned(memory, still, anchor, keys, values, gammas, offset)


def _read_rule(tensors: Sequence[Tensor], rule: str) -> tuple[Sequence[Tensor], dict[str, Any]]:
    """What `learn_chunked` put into one node: its six tensors, and its keywords."""
    kind, loss, step, chunk, window, parts, momentum, begun = rule.split()
    segments, *rest = tensors
    six, rest = rest[:6], rest[6:]
    log_eta = rest.pop(0) if int(momentum) else None
    fresh, held = tuple(rest[: int(parts)]), rest[int(parts) :]
    state = _nested(held, parts=int(parts), momentum=bool(int(momentum))) if int(begun) else None
    keywords = {"memory": MEMORIES[kind](loss), "step": step, "chunk": int(chunk), "window": int(window)}
    return six, {**keywords, "fresh": fresh, "log_eta": log_eta, "initial_state": state, "segments": segments}


def _packed(tensors: Sequence[Tensor], rule: str) -> Sequence[Tensor]:
    six, keywords = _read_rule(tensors, rule)
    out, state = learn_chunked(*six, **keywords)
    return (out, *_flat(state))


def _packed_shapes(tensors: Sequence[Tensor], rule: str) -> Sequence[Tensor]:
    (q, _, v, *_), keywords = _read_rule(tensors, rule)
    fresh = tuple(part.to(wide(v.dtype)) for part in keywords["fresh"])
    state = _begin(q, v, keywords["log_eta"], fresh, keywords["window"], keywords["initial_state"])
    return [x.new_empty(x.shape) for x in (v, *_flat(state))]


opaque.register("learn", _packed, _packed_shapes)
