"""The kernels of `contexture.ops.landmark_attention`: a softmax over blocks, and one inside every block, in one pass.

Tables of scores are never in memory: forward keeps the outputs and a log-sum a query, and backward makes the rest anew,
once for queries and once for keys, values and landmarks. Blocks come by a table of where each starts, so that packed
sequences, whose blocks start anew, take the same path. If a query enters only some blocks, which ones is found by torch
from the landmarks' scores, some hundreds of queries at a time, and handed over as a byte for each query and block;
blocks that no query of a tile enters are still scored.

Bound by FLOPs: three products a pair of query and key where softmax attention has two (batch 8, 16 heads of 128, length
8,192: 3.3 TFLOP = 4.1 ms at 798 TFLOP/s against 2.76 ms for causal softmax), with 2 * dim * 4 B of rows a token.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from contexture.errors import InputError
from contexture.ops.chunks import silence
from contexture.ops.kernels import LARGEST
from contexture.ops.landmark_attention import _add_marks
from contexture.ops.segments import positions, runs
from contexture.ops.triton import landmark_kernels as kernels
from contexture.ops.triton.launch import dot, rows, tile
from contexture.ops.triton.tiles import strides_of

ROWS = 512
"""For how many queries at a time the blocks to enter are chosen."""


class Cut(NamedTuple):
    """Queries of a tile, keys of a tile if a block has no more, and stages of the loop over tiles."""

    queries: int
    slots: int
    num_stages: int


def cut(dim: int, itemsize: int) -> Cut:
    """The one configuration for a size of head and of numbers, such that a tile's rows fit into an SM."""
    if itemsize == 4:
        return Cut(64, 64, 1) if dim <= 64 else Cut(32 if dim <= 128 else 16, 32, 1)
    return Cut(64 if dim <= 128 else 32, 64, 2)


class _Blocks(NamedTuple):
    """See `landmark_kernels` for the legend."""

    starts: Tensor
    own: Tensor
    lowest: Tensor
    until: Tensor


def _even_blocks(batch: int, time: int, past: int, block: int, device: torch.device) -> _Blocks:
    """Blocks of one size from the start of every row."""
    count = triton.cdiv(past + time, block)
    starts = (torch.arange(count + 1, device=device) * block).clamp(max=past + time)
    own = torch.arange(past, past + time, device=device) // block
    every = starts, own, torch.zeros_like(own), torch.full_like(starts[1:], time)
    return _Blocks(*(x.to(torch.int32).expand(batch, -1).contiguous() for x in every))


def _packed_blocks(segments: Tensor, block: int) -> _Blocks:
    """Blocks that start anew with every sequence; how many there are is read off the device."""
    step, (batch, time) = positions(segments), segments.shape
    own = (step % block == 0).cumsum(1) - 1
    order = torch.arange(int(own.max()) + 2, device=own.device).expand(batch, -1).contiguous()
    starts = torch.searchsorted(own, order)
    stretch = runs(segments)
    ends = torch.searchsorted(stretch, stretch, right=True)
    until = ends.gather(1, starts[:, :-1].clamp(max=time - 1))
    every = starts, own, own - step // block, until
    return _Blocks(*(x.to(torch.int32).contiguous() for x in every))


def _kept(q: Tensor, landmarks: Tensor, blocks: _Blocks, count: int) -> Tensor:
    """One byte for every query and block: whether it is among the `count` best, [batch, heads, time, blocks]."""
    number, found = torch.arange(landmarks.shape[1], device=q.device), []
    table = landmarks.permute(0, 2, 3, 1)
    pieces = zip(*(x.split(ROWS, 1) for x in (q, blocks.own, blocks.lowest)), strict=True)
    for some, own, lowest in pieces:
        entries = (some.transpose(1, 2) @ table).float()
        outside = (number >= own.unsqueeze(-1)) | (number < lowest.unsqueeze(-1))
        best = entries.masked_fill(outside.unsqueeze(1), -torch.inf).topk(min(count, len(number)), -1).indices
        found.append(torch.zeros_like(entries, dtype=torch.int8).scatter_(-1, best, 1))
    return torch.cat(found, 2)


class _Landmarks(torch.autograd.Function):
    """q: [batch, time, heads, dim]; k, v: [batch, past + time, heads, ...]; landmarks: [batch, blocks, heads, dim]."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        landmarks: Tensor,
        starts: Tensor,
        own: Tensor,
        lowest: Tensor,
        until: Tensor,
        kept: Tensor | None,
        block: int,
        scale: float,
    ) -> Tensor:
        (batch, time, heads, dim), out_dim, blocks = q.shape, v.shape[-1], landmarks.shape[1]
        side, taken = tile(block), cut(max(dim, out_dim), v.element_size())
        settings = {
            "DIM": dim, "OUT": out_dim, "BQ": taken.queries, "BD": tile(dim), "BE": tile(out_dim),
            "NUM": max(1, taken.slots // side), "BP": side, "FEW": kept is not None, "DOT": dot(v.dtype),
        }  # fmt: skip
        sizes = time, k.shape[1] - time, heads, blocks, scale
        strides = tuple(strides_of(x) for x in (q, k, v, landmarks))
        out = torch.empty(batch, time, heads, out_dim, dtype=v.dtype, device=v.device)
        lse = torch.empty(batch, time, heads, dtype=torch.float32, device=v.device)
        given = q, k, v, landmarks, starts, own, lowest, starts if kept is None else kept
        grid = (triton.cdiv(time, settings["BQ"]) * batch * heads,)
        launch = {"num_warps": 4, "num_stages": taken.num_stages}
        kernels.outputs_kernel[grid](*given, out, lse, *strides, *sizes, **settings, **launch)
        ctx.save_for_backward(*given, until, out, lse)
        ctx.launch = grid, strides, sizes, settings
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *given, until, out, lse = ctx.saved_tensors
        grid, strides, sizes, settings = ctx.launch
        d_out = gradients[0].contiguous()
        d_q, d_k, d_v, d_landmarks = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in given[:4])
        delta = torch.empty(lse.shape, dtype=lse.dtype, device=lse.device)
        rest = *strides, *sizes
        kernels.queries_kernel[grid](*given, out, lse, d_out, d_q, delta, *rest, **settings, num_warps=8, num_stages=1)
        grid = (triton.cdiv(d_landmarks.shape[1], settings["NUM"]) * len(d_out) * d_out.shape[2],)
        kernels.keys_kernel[grid](
            *given, until, lse, delta, d_out, d_k, d_v, d_landmarks, *rest, **settings, num_warps=8, num_stages=1
        )
        return d_q, d_k, d_v, d_landmarks, None, None, None, None, None, None, None


def landmark_attention_triton(
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
    """Tiles of whole blocks; blocks of up to 256 tokens."""
    if block > LARGEST:
        raise InputError(f"the kernel takes blocks of up to {LARGEST} tokens, not {block}: take the path 'chunked'")
    (batch, time), past = q.shape[:2], k.shape[1] - q.shape[1]
    if segments is None:
        blocks = _even_blocks(batch, time, past, block, q.device)
        found = _add_marks(sums, marks, past, block)
    else:
        blocks = _packed_blocks(segments, block)
        place = blocks.own.long()[:, :, None, None].expand_as(marks)
        found = marks.new_zeros(batch, blocks.starts.shape[1] - 1, *marks.shape[2:], dtype=torch.float32)
        found = found.scatter_add(1, place, marks.float())
    landmarks = (found / block).to(k.dtype)
    kept = None
    if num_retrieved is not None:
        with torch.no_grad():
            kept = _kept(q * scale, landmarks, blocks, num_retrieved)
    out = _Landmarks.apply(rows(q), rows(k), rows(v), rows(landmarks), *blocks, kept, block, scale)
    return silence(out, segments)
