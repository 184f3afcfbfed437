"""Exponentially decaying sums over time, the moving average of momentum (Polyak, 1964).

    s_t = decay s_{t-1} + x_t

and over a chunk of C rows:  s = L x + d s_before,  L_ij = decay^(i - j) for i >= j,  d_i = decay^(i + 1).

x, s: [batch, time, heads, dim]; decay: a number in [0, 1); the state is the last s, [batch, heads, dim], in fp32 at
least. A change of segment sets s to zero.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import chunk_size, join, masks, silence, split, wide
from contexture.ops.segments import runs

CHUNK = 64


def moving_average_reference(
    x: Tensor, *, decay: float, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The definition, one step after another."""
    dtype = x.dtype
    x = silence(x, segments).to(wide(dtype))
    state = torch.zeros_like(x[:, 0]) if initial_state is None else initial_state
    stretch = None if segments is None else runs(segments)
    outputs = []
    for t in range(x.shape[1]):
        if stretch is not None and t > 0:
            state = state * (stretch[:, t] == stretch[:, t - 1]).to(state.dtype).view(-1, 1, 1)
        state = decay * state + x[:, t]
        outputs.append(state)
    return torch.stack(outputs, 1).to(dtype), state


def moving_average_chunked(
    x: Tensor, *, decay: float, initial_state: Tensor | None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One product inside chunks, a sum between them."""
    time, dtype, held = x.shape[1], x.dtype, wide(x.dtype)
    size = chunk_size(time, CHUNK)
    rows = split(silence(x, segments), size)
    age = torch.arange(size, device=x.device)
    weights = (decay ** (age[:, None] - age).clamp(min=0).to(held)).tril()
    fading = (decay ** (age + 1).to(held)).unsqueeze(-1)
    kept = None
    if segments is not None:
        mask = masks(segments, size, held)
        weights, fading = weights * mask.within, fading * mask.reads
        kept = mask.keeps.squeeze(-1).unbind(2)
    sums = (weights.to(dtype) @ rows).to(held)
    state = torch.zeros_like(sums[:, :, 0, 0]) if initial_state is None else initial_state
    states = []
    for n, added in enumerate(_ends(sums, time)):
        states.append(state)
        length = size if (n + 1) * size <= time else time - n * size
        state = added + decay**length * (state if kept is None else state * kept[n])
    out = sums + fading * torch.stack(states, 2).unsqueeze(-2)
    return silence(join(out, time), segments).to(dtype), state


def _ends(sums: Float[Tensor, "batch heads chunks size dim"], time: int) -> tuple[Tensor, ...]:
    """Every chunk's last sum; the last chunk's is that of its last token, not of what fills it up."""
    *whole, last = sums.unbind(2)
    place = (time - 1) % sums.shape[3]
    return (*(chunk[:, :, -1] for chunk in whole), last[:, :, place])


def moving_average(
    x: Float[Tensor, "batch time heads dim"],
    *,
    decay: float,
    initial_state: Float[Tensor, "batch heads dim"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads dim"], Float[Tensor, "batch heads dim"]]:
    """Sum what came so far, each step back weighing `decay` times as much; returns the sums and the last one.

    >>> moving_average(torch.ones(1, 3, 1, 1), decay=0.5)[0].flatten().tolist()
    [1.0, 1.5, 1.75]
    """
    out, state = dispatch.run(OP, x, keys=x.shape[1], decay=decay, initial_state=initial_state, segments=segments)
    return out, state


def _sampled(
    x: Tensor, *, initial_state: Tensor | None = None, segments: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the laws call: a decay that reaches over several chunks."""
    return moving_average(x, decay=0.97, initial_state=initial_state, segments=segments)


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64),)


OP = dispatch.Op(
    name="moving-average",
    paths={"reference": moving_average_reference, "chunked": moving_average_chunked},
    call=_sampled,
    sample=_sample,
)
