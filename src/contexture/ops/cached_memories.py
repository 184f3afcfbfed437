"""Reading many memories at once, each with a weight of its own (Behrouz et al., 2026, arXiv:2602.24281).

    o_t = sum_i w_ti M_i(q_t),    M_i(x) = C_i' x    or    M_i(x) = x + W_i2' s(W_i1' x)

with s the SiLU: one part a memory makes it a matrix, two make it a network. A memory whose weight is zero is not read
at all, and that weight gets no gradient; so memories that are yet to come, or that were not selected, cost a kernel
nothing.

q: [batch, time, heads, dim]; w: [batch, time, memories], shared by all heads; a part: [batch, memories, heads, in,
out]; o: [batch, time, heads, out]. All is computed in fp32 at least. There is no state: what is read stands.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.errors import InputError
from contexture.ops import dispatch
from contexture.ops.chunks import silence, wide
from contexture.ops.memories import Matrix, Memory, Network

MEMORIES: dict[int, Memory] = {1: Matrix(), 2: Network()}
"""What a memory of so many parts is."""


def _read(weights: Tensor) -> Tensor:
    """The weights, of which those that are zero get no gradient."""
    return weights.masked_fill(weights.detach() == 0, 0.0)


def cached_memories_reference(q: Tensor, weights: Tensor, *parts: Tensor, segments: Tensor | None) -> Tensor:
    """The definition, one token and one memory after another."""
    dtype, held, memory = q.dtype, wide(q.dtype), MEMORIES[len(parts)]
    q, weights, outputs = q.to(held), _read(weights).to(held), []
    for t in range(q.shape[1]):
        total = q.new_zeros(*q[:, t].shape[:2], parts[-1].shape[-1])
        for i in range(weights.shape[2]):
            ours = [part[:, i].to(held) for part in parts]
            read = memory.read(lambda n, rows, ours=ours: rows @ ours[n], q[:, t].unsqueeze(2))  # type: ignore[misc]
            total = total + weights[:, t, i, None, None] * read.squeeze(2)
        outputs.append(total)
    return silence(torch.stack(outputs, 1), segments).to(dtype)


def cached_memories_chunked(q: Tensor, weights: Tensor, *parts: Tensor, segments: Tensor | None) -> Tensor:
    """Every token to every memory by batched products."""
    dtype, held, memory = q.dtype, wide(q.dtype), MEMORIES[len(parts)]
    ours = [part.to(held) for part in parts]
    every = memory.read(lambda n, rows: rows @ ours[n], q.to(held).transpose(1, 2).unsqueeze(1))
    shares = _read(weights).to(held).permute(0, 2, 1)[:, :, None, :, None]
    return silence((shares * every).sum(1).transpose(1, 2).to(dtype), segments)


def cached_memories(
    q: Float[Tensor, "batch time heads dim"],
    weights: Float[Tensor, "batch time memories"],
    *parts: Float[Tensor, "batch memories heads _ _"],
    segments: Int[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time heads out"]:
    """Read every memory with a weight of its own and add up; one part makes memories matrices, two networks.

    Raises InputError if there are neither one nor two parts.

    >>> memories = torch.tensor([2.0, 10.0]).view(1, 2, 1, 1, 1)
    >>> cached_memories(torch.ones(1, 1, 1, 1), torch.tensor([[[0.5, 0.25]]]), memories).item()
    3.5
    """
    if len(parts) not in MEMORIES:
        raise InputError(f"memories of {len(parts)} parts are not known: give one for matrices, two for networks")
    out: Tensor = dispatch.run(OP, q, weights, *parts, keys=weights.shape[2], segments=segments)
    return out


def _call(
    q: Tensor, weights: Tensor, *parts: Tensor, initial_state: tuple[()] = (), segments: Tensor | None = None
) -> tuple[Tensor, tuple[()]]:
    """The same memories for all rows, as the laws would have it."""
    every = (part.expand(len(q), *part.shape) for part in parts)
    return cached_memories(q, weights, *every, segments=segments), initial_state


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    first, second = draw(3, heads, dim, 2 * dim), draw(3, heads, 2 * dim, dim)
    return draw(batch, time, heads, dim), draw(batch, time, 3).softmax(-1), first, second


OP = dispatch.Op(
    name="cached-memories",
    paths={"reference": cached_memories_reference, "chunked": cached_memories_chunked},
    call=_call,
    sample=_sample,
)
