"""One chunk of a memory that learns while it is read: what its steps do to a part, and how the part is read meanwhile.

Within a chunk every gradient is a sum of products x_i d_i' (x what went into a part, d the error that came back), so

    z' M_t = d_t z' M + h_t z' S + sum_i c_ti (z.x_i) d_i',        c = F H Gamma

with F and H the products of f and eta between positions, Gamma_ti = theta_t gamma_i inside the window: no memory per
token is ever formed, but for the step `orthogonal`, which needs every S_t of a chunk.

`descent` takes S_t as it is; `orthogonal` takes it made nearly orthogonal; `orthogonal-chunk` does that once a chunk,
at its last token, and leaves the memory alone before. See `contexture.ops.learned_memory` for the rest of the legend.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.ops.anchors import Windows
from contexture.ops.decay_products import between, since
from contexture.ops.memories import Factors, Product
from contexture.ops.newton_schulz import orthogonalised_lean

Step = Literal["descent", "orthogonal", "orthogonal-chunk"]


class Weights(NamedTuple):
    """A chunk's weights, rows for its tokens t and columns for the tokens i of its window, [batch, heads, ...].

    writes: c_ti; pushes: the weights of S_t; of_memory, of_momentum: d_t and h_t, [.., slots, 1]; carried: what S_t
    keeps of S; keeps: F, with zeros for where there is no token; ends: one at the last token of a complete chunk.
    """

    writes: Tensor
    pushes: Tensor
    of_memory: Tensor
    of_momentum: Tensor
    carried: Tensor
    keeps: Tensor
    ends: Tensor


def weights_of(cut: Windows, theta: Tensor, gamma: Tensor, log_keep: Tensor, log_eta: Tensor | None) -> list[Weights]:
    """The weights of every chunk; gamma: [batch, past + time, heads], the others [batch, time, heads]."""
    every = stacked_weights(cut, theta, gamma, log_keep, log_eta)
    return [Weights(*one) for one in zip(*(x.unbind(2) for x in every), strict=True)]


def stacked_weights(cut: Windows, theta: Tensor, gamma: Tensor, log_keep: Tensor, log_eta: Tensor | None) -> Weights:
    """The same in one piece, chunks on the third axis."""
    own = cut.real[..., cut.past :]
    last = own & ~F.pad(own[..., 1:], (0, 1)) & cut.complete.unsqueeze(-1)

    def rows(x: Tensor) -> Tensor:
        return cut.own(x).movedim(3, 1).masked_fill(~own.unsqueeze(1), 0.0)

    theta, log_keep = rows(theta).unsqueeze(-1), rows(log_keep)
    gamma = cut.cut(gamma).movedim(3, 1).masked_fill(~cut.real.unsqueeze(1), 0.0).unsqueeze(-2)
    window = torch.ones(cut.slots, cut.past + cut.slots, dtype=theta.dtype, device=theta.device).tril(cut.past).triu()
    keeps = between(log_keep) * own[:, None, :, None].to(theta.dtype)
    pushes, carried = theta * gamma * window, torch.zeros_like(theta)
    if log_eta is not None:
        log_eta = rows(log_eta)
        pushes, carried = between(log_eta) @ pushes, since(log_eta).unsqueeze(-1)
    ends = last[:, None, :, :, None].to(theta.dtype)
    return Weights(keeps @ pushes, pushes, since(log_keep).unsqueeze(-1), keeps @ carried, carried, keeps, ends)


def _descent(old: Tensor, momentum: Tensor | None, factors: Factors, weights: Weights) -> tuple[Product, Tensor]:
    """Reads between steps that add S_t itself, and the part after the chunk."""
    inputs, errors = factors

    def product(_: int, rows: Tensor) -> Tensor:
        out = weights.of_memory * (rows @ old) + (weights.writes * (rows @ inputs.mT)) @ errors
        return out if momentum is None else out + weights.of_momentum * (rows @ momentum)

    new = weights.of_memory[..., -1:, :] * old + (inputs.mT * weights.writes[..., -1:, :]) @ errors
    return product, new if momentum is None else new + weights.of_momentum[..., -1:, :] * momentum


def _orthogonal(old: Tensor, momentum: Tensor | None, factors: Factors, weights: Weights) -> tuple[Product, Tensor]:
    """Every S_t of the chunk, made orthogonal, and the memories that they add up to, [.., slots, in, out]."""
    inputs, errors = factors
    pushed = (inputs.unsqueeze(-3) * weights.pushes.unsqueeze(-1)).mT @ errors.unsqueeze(-3)
    if momentum is not None:
        pushed = pushed + weights.carried.unsqueeze(-1) * momentum.unsqueeze(-3)
    steps = weights.keeps @ orthogonalised_lean(pushed).flatten(-2)
    every = weights.of_memory.unsqueeze(-1) * old.unsqueeze(-3) + steps.view_as(pushed)
    return lambda _, rows: (rows.unsqueeze(-2) @ every).squeeze(-2), every[..., -1, :, :]


def _orthogonal_chunk(
    old: Tensor, momentum: Tensor | None, factors: Factors, weights: Weights
) -> tuple[Product, Tensor]:
    """One step, at the last token of a complete chunk."""
    pushed = orthogonalised_lean(pushed_by(momentum, factors, weights))

    def product(_: int, rows: Tensor) -> Tensor:
        return weights.of_memory * (rows @ old) + weights.ends * (rows @ pushed)

    return product, weights.of_memory[..., -1:, :] * old + weights.ends.sum(-2, keepdim=True) * pushed


def pushed_by(momentum: Tensor | None, factors: Factors, weights: Weights) -> Tensor:
    """S at the end of the chunk."""
    pushed = (factors.inputs.mT * weights.pushes[..., -1:, :]) @ factors.errors
    return pushed if momentum is None else pushed + weights.carried[..., -1:, :] * momentum


STEPS: dict[Step, Callable[[Tensor, Tensor | None, Factors, Weights], tuple[Product, Tensor]]] = {
    "descent": _descent,
    "orthogonal": _orthogonal,
    "orthogonal-chunk": _orthogonal_chunk,
}
