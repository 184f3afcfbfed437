"""Mixing by a lower triangular matrix over positions (Badger, 2024, arXiv:2409.01482, after the MLP-Mixer).

    y_t = sum_{s <= t} W_ts x_s

the same for every channel of a head, whatever the tokens are. x, y: [batch, time, heads, dim];
W: [groups, heads, length, length], where the batch is groups times as large as that of one group, groups outermost.
The state is all inputs so far, [batch, past, heads, dim]. A segment starts again at W's first row; packed sequences
pick their own entries of W, [batch, heads, time, time], which costs as much memory as attention's whole table.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.ops import dispatch
from contexture.ops.chunks import silence, wide
from contexture.ops.segments import positions as positions_of
from contexture.ops.softmax_attention import visible


def masked_mixing_reference(x: Tensor, weight: Tensor, *, past: int, segments: Tensor | None = None) -> Tensor:
    """The definition, one position after another."""
    dtype, batch = x.dtype, x.shape[0]
    x, weight = x.to(wide(dtype)), weight.to(wide(dtype)).repeat_interleave(batch // weight.shape[0], 0)
    time, outputs, row = x.shape[1] - past, [], torch.arange(batch, device=x.device).unsqueeze(1)
    seen = visible(time, x.shape[1], segments, device=x.device)[:, 0].to(x.dtype)
    steps = torch.arange(x.shape[1], device=x.device).expand(batch, -1) if segments is None else positions_of(segments)
    for t in range(time):
        stop = past + t + 1
        entries = weight[row, :, steps[:, stop - 1 : stop], steps[:, :stop]] * seen[:, t, :stop, None]
        outputs.append(torch.einsum("bsh,bshd->bhd", entries, x[:, :stop]))
    return silence(torch.stack(outputs, 1), segments).to(dtype)


def masked_mixing_products(x: Tensor, weight: Tensor, *, past: int, segments: Tensor | None = None) -> Tensor:
    """One product per group and head over all positions; per row of the batch where sequences are packed."""
    (_, keys, heads, dim), groups = x.shape, weight.shape[0]
    if segments is not None:
        return silence(_packed(x, weight, segments), segments)
    inputs = torch.unflatten(x, 0, (groups, -1)).permute(0, 3, 2, 1, 4).flatten(3).flatten(0, 1)
    table = weight[:, :, past:keys, :keys].to(x.dtype).tril(past).flatten(0, 1)
    out = torch.unflatten(torch.unflatten(table @ inputs, 2, (-1, dim)), 0, (groups, heads))
    return out.permute(0, 3, 2, 1, 4).flatten(0, 1)


def _packed(x: Tensor, weight: Tensor, segments: Tensor) -> Tensor:
    """Every row of the batch under its own choice of the matrix's entries."""
    (batch, time), groups = x.shape[:2], weight.shape[0]
    group = torch.arange(groups, device=x.device).repeat_interleave(batch // groups).view(-1, 1, 1)
    steps = positions_of(segments)
    entries = weight.to(x.dtype).permute(0, 2, 3, 1)[group, steps.unsqueeze(2), steps.unsqueeze(1)]
    table = entries.permute(0, 3, 1, 2) * visible(time, time, segments, device=x.device).to(x.dtype)
    return (table @ x.transpose(1, 2)).transpose(1, 2)


def masked_mixing(
    x: Float[Tensor, "batch time heads dim"],
    weight: Float[Tensor, "groups heads length length"],
    *,
    initial_state: Float[Tensor, "batch past heads dim"] | None = None,
    segments: Int[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time heads dim"], Float[Tensor, "batch seen heads dim"]]:
    """Mix all inputs so far with the weights of the present position; returns outputs and all inputs.

    >>> x = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    >>> weight = torch.tensor([[1.0, 9.0, 9.0], [10.0, 1.0, 9.0], [100.0, 10.0, 1.0]]).view(1, 1, 3, 3)
    >>> masked_mixing(x, weight)[0].flatten().tolist()
    [1.0, 12.0, 123.0]
    """
    past = 0 if initial_state is None else initial_state.shape[1]
    if initial_state is not None:
        x = torch.cat((initial_state.to(x.dtype), x), 1)
    out = dispatch.run(OP, x, weight, keys=x.shape[1], past=past, segments=segments)
    return out, x


def _sample(generator: torch.Generator, *, batch: int, time: int, heads: int, dim: int) -> tuple[Tensor, ...]:
    x = torch.randn(batch, time, heads, dim, generator=generator, dtype=torch.float64)
    return x, torch.randn(1, heads, 140, 140, generator=generator, dtype=torch.float64)


OP = dispatch.Op(
    name="masked-mixing",
    paths={"reference": masked_mixing_reference, "products": masked_mixing_products},
    call=masked_mixing,
    sample=_sample,
)
