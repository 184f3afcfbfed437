"""Softmax attention in groups, each entered by its landmark (Mohtashami & Jaggi, 2023, arXiv:2305.16300).

Time is cut into blocks of `block` tokens. A query at t scores the tokens of its own block and, of every block before,
the landmark l_b alone; a block's share of attention goes to its tokens by a softmax of their own:

    p_t = softmax over  { scale q_t.k_s : s <= t in the block of t }  and  { scale q_t.l_b : blocks b before it }
    o_t = sum_{s in the block of t} p_ts v_s + sum_b p_tb sum_{s in b} softmax_{s in b}(scale q_t.k_s) v_s

In the paper a landmark is the key of a special token put behind each block. Here no token is put in: a block's landmark
is the mean over its tokens of a third projection, the marks m_s, and stands as soon as the block is complete. So a
stream needs no look ahead, lengths stay as they are, and a block can be entered once all of it has been seen.
With `num_retrieved` only that many blocks are entered, those with the highest scores of their landmarks, for each query
and head. A single query then reads no other block.

q, k, m: [batch, time, heads, dim]; v, o: [batch, time, heads, out]; blocks count from the start of each segment.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import dispatch
from contexture.ops.chunks import silence, wide
from contexture.ops.segments import positions as positions_of

QUERIES = 256
"""How many queries are scored at once: their tables are of the keys up to the last of them, and stay in the cache."""


class LandmarkState(NamedTuple):
    """Keys and values of earlier tokens, [batch, past, heads, ...], and sums of marks, [batch, blocks, heads, dim].

    The last sum may be that of a block yet to be completed; sums are in fp32 at least.
    """

    keys: Tensor
    values: Tensor
    sums: Tensor


def landmark_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    marks: Tensor,
    *,
    scale: float,
    block: int,
    num_retrieved: int | None,
    sums: Tensor,
    segments: Tensor | None = None,
) -> Tensor:
    """The definition, one query after another, in fp32 at least."""
    dtype, past = v.dtype, k.shape[1] - q.shape[1]
    q, k, v, marks = (x.to(wide(dtype)) for x in (q, k, v, marks))
    clock = torch.arange(q.shape[1]).expand(q.shape[0], -1)
    steps = (clock + past if segments is None else positions_of(segments)).tolist()
    rows = []
    for row in range(q.shape[0]):
        outputs: list[Tensor] = []
        found = list(sums[row].unbind(0))
        for t, step in enumerate(steps[row]):
            start, complete = past + t - step, step // block
            if step == 0:
                found = []
            if step % block == 0:
                found.append(torch.zeros_like(marks[row, t]))
            query, found[-1] = scale * q[row, t], found[-1] + marks[row, t]
            keys, values = k[row, start : past + t + 1], v[row, start : past + t + 1]
            scores = torch.einsum("hd,shd->hs", query, keys[complete * block :])
            groups = [values[complete * block :]]
            if complete:
                landmarks = torch.stack(found[:complete]) / block
                entries = _retrieve(torch.einsum("hd,bhd->hb", query, landmarks), num_retrieved)
                inside, within = (torch.unflatten(x[: complete * block], 0, (complete, block)) for x in (keys, values))
                shares = torch.einsum("hd,bshd->bhs", query, inside).softmax(-1)
                scores = torch.cat((scores, entries), 1)
                groups.append(torch.einsum("bhs,bshe->bhe", shares, within))
            outputs.append(torch.einsum("hs,she->he", scores.softmax(-1), torch.cat(groups)))
        rows.append(torch.stack(outputs))
    return silence(torch.stack(rows), segments).to(dtype)


def _retrieve(entries: Float[Tensor, "*lead blocks"], count: int | None) -> Float[Tensor, "*lead blocks"]:
    """Minus infinity for all but the `count` highest scores of landmarks."""
    if count is None or count >= entries.shape[-1]:
        return entries
    best = entries.detach().topk(count, -1).indices
    return entries.masked_fill(torch.ones_like(entries, dtype=torch.bool).scatter(-1, best, False), -math.inf)


def landmark_attention_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    marks: Tensor,
    *,
    scale: float,
    block: int,
    num_retrieved: int | None,
    sums: Tensor,
    segments: Tensor | None = None,
) -> Tensor:
    """Tables of scores by batched products; one query that retrieves reads what it retrieves alone."""
    time, past = q.shape[1], k.shape[1] - q.shape[1]
    queries = (q * scale).transpose(1, 2)
    if segments is not None:
        weights = _packed_weights(queries, k, marks, positions_of(segments), block, num_retrieved)
        return silence(_weigh(weights, v), segments)
    landmarks = (_add_marks(sums, marks, past, block) / block).to(k.dtype)
    if time == 1 and num_retrieved is not None:
        return _one_query(queries, k, v, _entries(queries, landmarks).squeeze(2), block, num_retrieved)
    outputs = []
    for start, some in zip(range(past, past + time, QUERIES), torch.split(queries, QUERIES, 2), strict=True):
        stop = min(start + QUERIES, past + time)
        entries = _entries(some, landmarks[:, : -(-stop // block)])
        outputs.append(_weigh(_weights(some, k[:, :stop], entries, block, num_retrieved), v[:, :stop]))
    return torch.cat(outputs, 1)


def _entries(queries: Tensor, landmarks: Tensor) -> Float[Tensor, "batch heads queries blocks"]:
    """The scores of landmarks."""
    return (queries @ landmarks.permute(0, 2, 3, 1)).to(wide(queries.dtype))


def _weigh(weights: Float[Tensor, "batch heads queries keys"], v: Tensor) -> Tensor:
    return (weights.to(v.dtype) @ v.transpose(1, 2)).transpose(1, 2)


def _weights(queries: Tensor, k: Tensor, entries: Tensor, block: int, num_retrieved: int | None) -> Tensor:
    """Every query's weight of every key, [batch, heads, queries, keys], where blocks lie on one grid."""
    time, seen, held = queries.shape[2], k.shape[1], entries.dtype
    keys = F.pad(k, (0, 0, 0, 0, 0, -seen % block)).permute(0, 2, 3, 1)
    scores = torch.unflatten((queries @ keys).to(held), -1, (-1, block))
    step = torch.arange(seen - time, seen, device=k.device)
    # Not step // block: from that, torch.compile's kernels of torch 2.13 read indices that are none.
    own = torch.arange(scores.shape[3], device=k.device).repeat_interleave(block)[seen - time : seen]
    later = torch.arange(entries.shape[-1], device=k.device) >= own[:, None]
    entries = _retrieve(entries.masked_fill(later, -math.inf), num_retrieved)
    place = own[:, None, None].expand(*scores.shape[:2], -1, 1, block)
    beyond = torch.arange(block, device=k.device) > (step % block)[:, None]
    near = scores.gather(3, place).squeeze(3).masked_fill(beyond, -math.inf)
    blocks, tokens = torch.split(torch.cat((entries, near), -1).softmax(-1), [entries.shape[-1], block], -1)
    weights = scores.softmax(-1) * blocks.unsqueeze(-1)
    return weights.scatter(3, place, tokens.unsqueeze(3)).flatten(3)[..., :seen]


def _packed_weights(
    queries: Tensor, k: Tensor, marks: Tensor, steps: Tensor, block: int, num_retrieved: int | None
) -> Tensor:
    """The same where blocks begin anew with each segment: a row's blocks are numbered from its start."""
    time, held = queries.shape[2], wide(k.dtype)
    number = (steps % block == 0).cumsum(1) - 1
    index = number[:, None, None, :].expand(-1, queries.shape[1], time, -1)
    scores = (queries @ k.permute(0, 2, 3, 1)).to(held)
    # Every block has its own maximum, lest the softmax inside a block that lies far below the others vanish.
    largest = torch.full_like(scores, -math.inf).scatter_reduce(-1, index, scores.detach(), "amax")
    raised = torch.exp(scores - largest.gather(-1, index))
    inside = raised / torch.zeros_like(raised).scatter_add(-1, index, raised).gather(-1, index)
    spread = number[:, :, None, None].expand_as(marks)
    landmarks = torch.zeros_like(marks, dtype=held).scatter_add(1, spread, marks.to(held)) / block
    entries = _entries(queries, landmarks.to(k.dtype))
    blocks, own = torch.arange(time, device=k.device), number.unsqueeze(-1)
    earlier = (blocks < own) & (blocks >= own - (steps // block).unsqueeze(-1))
    entries = _retrieve(entries.masked_fill(~earlier.unsqueeze(1), -math.inf), num_retrieved)
    same = (own == number.unsqueeze(1)) & (blocks[:, None] >= blocks)
    near = scores.masked_fill(~same.unsqueeze(1), -math.inf)
    shares, tokens = torch.cat((entries, near), -1).softmax(-1).chunk(2, -1)
    return tokens + inside * shares.gather(-1, index)


def _one_query(queries: Tensor, k: Tensor, v: Tensor, entries: Tensor, block: int, num_retrieved: int) -> Tensor:
    """One query that reads its own block and the retrieved ones, [batch, 1, heads, out]."""
    own, held = (k.shape[1] - 1) // block, entries.dtype
    near = (queries @ k[:, own * block :].permute(0, 2, 3, 1)).squeeze(2).to(held)
    score, best = entries[..., :own].topk(min(num_retrieved, own), -1)
    blocks, tokens = torch.split(torch.cat((score, near), -1).softmax(-1), [score.shape[-1], near.shape[-1]], -1)
    out = tokens.to(v.dtype).unsqueeze(2) @ v[:, own * block :].transpose(1, 2)
    if score.shape[-1]:
        place = best[..., None, None]
        keys, values = (
            torch.unflatten(x[:, : own * block], 1, (own, block)).permute(0, 3, 1, 2, 4).take_along_dim(place, 2)
            for x in (k, v)
        )
        inside = (keys @ queries.unsqueeze(2).mT).to(held).softmax(-2) * blocks[..., None, None]
        out = out + (inside.to(v.dtype).mT @ values).sum(2)
    return out.transpose(1, 2)


def _add_marks(
    sums: Float[Tensor, "batch before heads dim"], marks: Tensor, past: int, block: int
) -> Float[Tensor, "batch after heads dim"]:
    """The sums of marks of all blocks, the last one complete or not, after further tokens."""
    begun, time = past % block, marks.shape[1]
    marks = F.pad(marks.to(sums.dtype), (0, 0, 0, 0, begun, -(begun + time) % block))
    added = torch.unflatten(marks, 1, (-1, block)).sum(2)
    if not begun:
        return torch.cat((sums, added), 1)
    return torch.cat((sums[:, :-1], sums[:, -1:] + added[:, :1], added[:, 1:]), 1)


def no_landmarks(batch: int, heads: int, dim: int, *, device: torch.device | str, dtype: torch.dtype) -> LandmarkState:
    """Nothing seen yet."""
    empty = torch.zeros(batch, 0, heads, dim, device=device, dtype=dtype)
    return LandmarkState(empty, empty, empty.to(wide(dtype)))


def landmark_attention(
    q: Float[Tensor, "batch time heads dim"],
    k: Float[Tensor, "batch time heads dim"],
    v: Float[Tensor, "batch time heads out"],
    marks: Float[Tensor, "batch time heads dim"],
    *,
    block: int = 16,
    num_retrieved: int | None = None,
    scale: float | None = None,
    initial_state: LandmarkState | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads out"], LandmarkState]:
    """Attend to the present block's tokens and to earlier blocks by their landmarks; returns outputs and grown state.

    All earlier blocks are entered unless `num_retrieved` is given; `scale` is 1/sqrt(dim) unless given. Raises
    InputError if packed sequences are to go on from a state: where their blocks end, it does not know.

    >>> zero, v = torch.zeros(1, 3, 1, 1), torch.tensor([1.0, 3.0, 8.0]).view(1, 3, 1, 1)
    >>> landmark_attention(zero, zero, v, zero, block=2)[0].flatten().tolist()
    [1.0, 2.0, 5.0]
    """
    if initial_state is not None and segments is not None:
        raise InputError("landmark attention takes packed sequences from their start: give segments or a state")
    past, sums = 0, torch.zeros_like(marks[:, :0], dtype=wide(marks.dtype))
    if initial_state is not None:
        past, sums = initial_state.keys.shape[1], initial_state.sums
        k, v = torch.cat((initial_state.keys, k), 1), torch.cat((initial_state.values, v), 1)
    out = dispatch.run(
        OP,
        q,
        k,
        v,
        marks,
        keys=k.shape[1],
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
        block=block,
        num_retrieved=num_retrieved,
        sums=sums,
        segments=segments,
    )
    return out, LandmarkState(k, v, _add_marks(sums, marks, past, block))


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64) for _ in range(4))


OP = dispatch.Op(
    name="landmark-attention",
    paths={"reference": landmark_attention_reference, "chunked": landmark_attention_chunked},
    call=landmark_attention,
    sample=_sample,
)
