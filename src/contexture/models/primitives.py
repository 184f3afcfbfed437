r"""Transformer layers with weights set by hand: what they can do to what a token holds.

A token's vector h [width] is cut into named slots. Layers are the usual ones, with matrices written out:

    attention      h_i <- h_i + sum_heads sum_j weigh_ij(<Q h_i, K h_j>) O V h_j
    feed-forward   h <- h + W_out act(norm(W_in h + b)),        norm: none, or the root mean square of the hidden units

    move       softmax over sharp scores between positions copies a slot from one token to another
    add        act(z) - act(-z) = z for ReLU and GELU alike
    multiply   a b = ((a + b)^2 - (a - b)^2) / 4,  z^2 = sqrt(2 pi) / (2 e^2) (gelu(e z) + gelu(-e z)) + O(e^2 z^4)
    pieces     a piecewise linear function of a slot, one ReLU unit for each change of its slope
    divide     a hidden unit N s that dwarfs the others makes the norm divide them by N s, up to O(N^-2)

Moving, multiplying, dividing and adding are the operations of Akyurek et al. 2022, arXiv:2211.15661.
Shapes: h [batch, tokens, width]; rows that read or write slots [rows, width].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError

Layer = Callable[[Float[Tensor, "batch tokens width"]], Float[Tensor, "batch tokens width"]]

SHARP = 100.0
"""A score that leaves e^-100 to any other token."""
SMALL = 1e-5
"""The e of multiplication: its error and the rounding of double precision are both about 1e-11."""
HUGE = 1e6
"""The N of division."""


class Slots:
    """Names for the coordinates of a token.

    >>> slots = Slots(x=2, y=1)
    >>> slots.width, slots["y"], slots.rows("y").tolist()
    (3, slice(2, 3, None), [[0.0, 0.0, 1.0]])
    """

    def __init__(self, **sizes: int) -> None:
        ends = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
        self.width: int = ends[-1]
        self._places = {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(sizes)}

    def __getitem__(self, name: str) -> slice:
        if name not in self._places:
            raise InputError(f"tokens have no slot {name!r}: there are {', '.join(self._places)}")
        return self._places[name]

    def rows(self, *names: str) -> Float[Tensor, "rows width"]:
        """Rows that read the slots, or write to them, one coordinate each."""
        identity = torch.eye(self.width, dtype=torch.float64)
        return torch.cat([identity[self[name]] for name in names])

    def fill(self, batch: int, tokens: int, **values: Tensor | float) -> Float[Tensor, "batch tokens width"]:
        """Tokens that hold these values, and zero in all other slots."""
        h = torch.zeros(batch, tokens, self.width, dtype=torch.float64)
        for name, value in values.items():
            h[..., self[name]] = value
        return h


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention:
    """Heads with explicit matrices; `weigh` turns scores [batch, heads, tokens, tokens] into weights."""

    queries: Float[Tensor, "heads rank width"]
    keys: Float[Tensor, "heads rank width"]
    values: Float[Tensor, "heads size width"]
    outputs: Float[Tensor, "heads size width"]
    weigh: Callable[[Tensor], Tensor]

    def __call__(self, h: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Add what every head reads."""
        q, k, v = (torch.einsum("btw,hrw->bhtr", h, part) for part in (self.queries, self.keys, self.values))
        return h + torch.einsum("bhts,hsw->btw", self.weigh(q @ k.mT) @ v, self.outputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedForward:
    """One hidden layer with explicit matrices; `normalise` divides its units by their root mean square."""

    into: Float[Tensor, "hidden width"]
    out: Float[Tensor, "hidden width"]
    bias: Float[Tensor, " hidden"] | None = None
    activation: Callable[[Tensor], Tensor] = F.gelu
    normalise: bool = False

    def __call__(self, h: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Add what the hidden units write."""
        hidden = h @ self.into.mT
        if self.bias is not None:
            hidden = hidden + self.bias
        if self.normalise:
            hidden = hidden * hidden.square().mean(-1, keepdim=True).rsqrt()
        return h + self.activation(hidden) @ self.out


def together(*parts: FeedForward) -> FeedForward:
    """The hidden units of several networks without a norm side by side, as one layer."""
    first = parts[0]
    if any(part.normalise or part.activation is not first.activation for part in parts):
        raise InputError("networks stand side by side only with one activation and without a norm")
    bias = [part.into.new_zeros(len(part.into)) if part.bias is None else part.bias for part in parts]
    return FeedForward(
        into=torch.cat([part.into for part in parts]),
        out=torch.cat([part.out for part in parts]),
        bias=torch.cat(bias),
        activation=first.activation,
    )


def add(
    read: Float[Tensor, "rows width"],
    write: Float[Tensor, "rows width"],
    *,
    activation: Callable[[Tensor], Tensor] = F.gelu,
) -> FeedForward:
    """h + sum_r <read_r, h> write_r.

    >>> slots = Slots(x=1, y=1)
    >>> add(slots.rows("x"), -2 * slots.rows("y"))(torch.tensor([[[3.0, 1.0]]], dtype=torch.float64))
    tensor([[[ 3., -5.]]], dtype=torch.float64)
    """
    return FeedForward(into=torch.cat((read, -read)), out=torch.cat((write, -write)), activation=activation)


def multiply(
    first: Float[Tensor, "rows width"], second: Float[Tensor, "rows width"], write: Float[Tensor, "rows width"]
) -> FeedForward:
    """h + sum_r <first_r, h> <second_r, h> write_r, by four GELU units a product."""
    plus, minus = SMALL * (first + second), SMALL * (first - second)
    scaled = math.sqrt(2 * math.pi) / (8 * SMALL**2) * write
    return FeedForward(into=torch.cat((plus, -plus, minus, -minus)), out=torch.cat((scaled, scaled, -scaled, -scaled)))


def pieces(
    read: Float[Tensor, "rows width"],
    write: Float[Tensor, "rows width"],
    *,
    knots: Float[Tensor, " knots"],
    values: Float[Tensor, " knots"],
) -> FeedForward:
    """h + sum_r f(<read_r, h>) write_r, where f is linear between the knots, and beyond the last as before it.

    Below the first knot f stays at its first value.

    >>> slots = Slots(x=1, y=1)
    >>> knots, values = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.0, 1.0, 2.0])
    >>> root = pieces(slots.rows("x"), slots.rows("y"), knots=knots, values=values)
    >>> root(torch.tensor([[[1.0, 0.0], [2.5, 0.0]]], dtype=torch.float64))[..., 1]
    tensor([[1.0000, 1.5000]], dtype=torch.float64)
    """
    slopes = values.diff() / knots.diff()
    bends = torch.cat((slopes[:1], slopes.diff())).to(read.dtype)
    return FeedForward(
        into=torch.cat((read.repeat_interleave(len(bends), 0), torch.zeros_like(read))),
        out=torch.cat(((bends[:, None] * write[:, None]).flatten(0, 1), values[0] * write)),
        bias=torch.cat((-knots[:-1].to(read.dtype).repeat(len(read)), torch.ones(len(read), dtype=read.dtype))),
        activation=F.relu,
    )


def divide(
    numerators: Float[Tensor, "rows width"], divisor: Float[Tensor, " width"], write: Float[Tensor, "rows width"]
) -> FeedForward:
    """h + sum_r <numerators_r, h> / <divisor, h> write_r, for a divisor above zero."""
    units = 2 * len(numerators) + 1
    scaled = HUGE / math.sqrt(units) * write
    return FeedForward(
        into=torch.cat((numerators, -numerators, HUGE * divisor.unsqueeze(0))),
        out=torch.cat((scaled, -scaled, torch.zeros_like(write[:1]))),
        normalise=True,
    )


def move(
    slots: Slots, heads: Sequence[tuple[int | None, Float[Tensor, "rows width"], Float[Tensor, "rows width"]]]
) -> Attention:
    """Heads (token, read, write) that add what `read` finds in that token to every token's `write`; None is itself.

    Tokens say where they are by a one-hot slot `here`, and hold 1 in the slot `one`.
    """
    here, one = slots.rows("here"), slots.rows("one")
    size = max(len(read) for _, read, _ in heads)

    def padded(rows: Tensor) -> Tensor:
        return F.pad(rows, (0, 0, 0, size - len(rows)))

    asked = [here if token is None else torch.zeros_like(here) for token, _, _ in heads]
    for query, (token, _, _) in zip(asked, heads, strict=True):
        if token is not None:
            query[token] = one[0]
    return Attention(
        queries=SHARP * torch.stack(asked),
        keys=here.expand(len(heads), -1, -1),
        values=torch.stack([padded(read) for _, read, _ in heads]),
        outputs=torch.stack([padded(write) for _, _, write in heads]),
        weigh=lambda scores: scores.softmax(-1),
    )
