"""Memories that are learned while they are read: a matrix or a small network, as a function of its parts.

    Matrix          M(x) = W' x
    Network         M(x) = x + W_2' s(W_1' x)
    GatedNetwork    M(x) = x + W_2' (s(W_1' x) * W_3' x)            (the "++" form of ATLAS, arXiv:2505.23735)

with s the SiLU. The gradient of an inner loss in a part is a product x d' of what went into the part and the error
that came back to it, so that a memory after many steps is never needed as such: `read` asks only for products of the
parts with vectors, and `errors` hands out the factors x and d. The losses are

    squared    |M(k) - v|^2 / 2        product    -M(k).v

A part: [batch, heads, in, out]; x, k, q, v, d: [batch, heads, rows, in or out]. A matrix is part 0; networks have their
first layers first and W_2 last.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Literal["squared", "product"]
Product = Callable[[int, Tensor], Tensor]
"""Part number and rows to the rows times that part, whatever the part has become by then."""
Parts = tuple[Tensor, ...]


class Factors(NamedTuple):
    """What a step of descent adds to a part: inputs' errors, [batch, heads, rows, in] and [batch, heads, rows, out]."""

    inputs: Tensor
    errors: Tensor


class Memory(Protocol):
    """A function of parts: how it is read, and the factors of its loss's negative gradient."""

    @property
    def loss(self) -> Loss:
        """The inner loss of one row."""
        ...

    def read(self, product: Product, q: Tensor) -> Tensor:
        """The memory at the rows q."""

    def errors(self, parts: Parts, k: Tensor, v: Tensor) -> tuple[Factors, ...]:
        """The negative gradient of each row's loss in each part, as factors."""


def output_error(loss: Loss, out: Tensor, v: Tensor) -> Tensor:
    """The negative gradient of the loss in the memory's output."""
    return v - out if loss == "squared" else v


@dataclass(frozen=True)
class Matrix:
    """A linear memory of one part, [dim, out]."""

    loss: Loss = "squared"

    def read(self, product: Product, q: Tensor) -> Tensor:
        """W' q."""
        return product(0, q)

    def errors(self, parts: Parts, k: Tensor, v: Tensor) -> tuple[Factors, ...]:
        """One pair of factors: the keys, and what is missing from the values."""
        return (Factors(k, output_error(self.loss, k @ parts[0] if self.loss == "squared" else v, v)),)


@dataclass(frozen=True)
class Network:
    """Two layers around a SiLU with the input added: parts [dim, hidden] and [hidden, dim]."""

    loss: Loss = "squared"

    def read(self, product: Product, q: Tensor) -> Tensor:
        """The network at q."""
        return q + product(1, F.silu(product(0, q)))

    def errors(self, parts: Parts, k: Tensor, v: Tensor) -> tuple[Factors, ...]:
        """Backpropagation by hand."""
        z = k @ parts[0]
        hidden = F.silu(z)
        error = output_error(self.loss, k + hidden @ parts[1], v)
        return Factors(k, (error @ parts[1].mT) * _silu_slope(z)), Factors(hidden, error)


@dataclass(frozen=True)
class GatedNetwork:
    """A network whose hidden units are gated: parts [dim, hidden], [dim, hidden] and [hidden, dim]."""

    loss: Loss = "squared"

    def read(self, product: Product, q: Tensor) -> Tensor:
        """The network at q."""
        return q + product(2, F.silu(product(0, q)) * product(1, q))

    def errors(self, parts: Parts, k: Tensor, v: Tensor) -> tuple[Factors, ...]:
        """Backpropagation by hand."""
        z, gate = k @ parts[0], k @ parts[1]
        active = F.silu(z)
        hidden = active * gate
        error = output_error(self.loss, k + hidden @ parts[2], v)
        back = error @ parts[2].mT
        return Factors(k, back * gate * _silu_slope(z)), Factors(k, back * active), Factors(hidden, error)


def _silu_slope(z: Tensor) -> Tensor:
    sigmoid = torch.sigmoid(z)
    return sigmoid * (1 + z * (1 - sigmoid))


def total_loss(memory: Memory, parts: Parts, k: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """The weighted sum of the inner losses of all rows; weight: [batch, heads, rows, 1]."""
    out = memory.read(lambda part, rows: rows @ parts[part], k)
    each = (
        (out - v).square().sum(-1, keepdim=True) / 2 if memory.loss == "squared" else -(out * v).sum(-1, keepdim=True)
    )
    return (each * weight).sum()


MEMORIES: dict[str, Callable[[Any], Memory]] = {kind.__name__: kind for kind in (Matrix, Network, GatedNetwork)}
