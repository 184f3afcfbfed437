r"""Transformers with weights set by hand that learn a linear model from one example after another.

    tokens   (x_1, 0), (0, y_1), .., (x_n, 0), (0, y_n), (x, 0): the query, which keeps the model in slots of its own

    descent   w <- w - rate (w.x_i - y_i) x_i                                        two layers an example
    ridge     u = A x_i,  A <- A - u u' / (1 + x_i.u),  b <- b + y_i x_i             three layers an example
              A_0 = I / penalty;  w = A b, which is (X'X + penalty I)^-1 X'y         (Sherman and Morrison 1950)

The tokens that are read are never written, so a causal mask changes nothing. Akyurek et al. 2022, arXiv:2211.15661.
Shapes: x [batch, time, features], y [batch, time], queries [batch, queries, features]; width about 2 d^2 + 2 n.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.models.primitives import Layer, Slots, add, divide, move, multiply, together


@dataclass(frozen=True, kw_only=True, eq=False)
class Updates:
    """A transformer whose layers come in groups, one for each example, and a last group that reads the query's answer.

    fill: what the slots of the query hold at the start, besides its input.
    """

    slots: Slots
    groups: Sequence[Sequence[Layer]]
    reading: Sequence[Layer]
    fill: dict[str, Tensor]

    @property
    def num_layers(self) -> int:
        """How deep the transformer is after all examples."""
        return sum(map(len, self.groups)) + len(self.reading)

    def read_outs(
        self,
        x: Float[Tensor, "batch time features"],
        y: Float[Tensor, "batch time"],
        queries: Float[Tensor, "batch queries features"],
    ) -> list[Float[Tensor, "batch queries"]]:
        """The answer to every query after each example."""
        (batch, time), num_tokens = y.shape, 2 * y.shape[1] + queries.shape[1]
        h = self.slots.fill(batch, num_tokens, one=1.0, **self.fill)
        h[..., self.slots["here"]] = torch.eye(num_tokens, self._positions, dtype=h.dtype)
        h[:, 0 : 2 * time : 2, self.slots["input"]] = x
        h[:, 1 : 2 * time : 2, self.slots["target"]] = y.unsqueeze(-1)
        h[:, 2 * time :, self.slots["input"]] = queries
        said = []
        for group in self.groups[:time]:
            for layer in group:
                h = layer(h)
            read = h
            for layer in self.reading:
                read = layer(read)
            said.append(read[:, 2 * time :, self.slots["said"]].squeeze(-1))
        return said

    @property
    def _positions(self) -> int:
        place = self.slots["here"]
        return int(place.stop - place.start)


def _dot(slots: Slots, first: str, second: str, write: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rows for the inner product of two slots."""
    read = slots.rows(first)
    return read, slots.rows(second), slots.rows(write).expand(len(read), -1)


def _bring(slots: Slots, example: int, forget: Sequence[str]) -> Layer:
    """Fetch an example into the slots x and y, and empty other slots of what the last one left."""
    old = slots.rows("x", "y", *forget)
    return move(
        slots,
        [
            (2 * example, slots.rows("input"), slots.rows("x")),
            (2 * example + 1, slots.rows("target"), slots.rows("y")),
            (None, old, -old),
        ],
    )


def online_descent(
    num_features: int, *, num_examples: int, rate: float, num_queries: int = 1, residual: bool = True
) -> Updates:
    """One gradient step of half the squared error on each example in turn, from w = 0.

    Without `residual` the step is rate y x, which does not look at what w says already.
    """
    here = 2 * num_examples + num_queries
    slots = Slots(input=num_features, target=1, one=1, here=here, x=num_features, y=1, r=1, w=num_features, said=1)
    say = multiply(*_dot(slots, "w", "x", "r"))
    error = add(slots.rows("y"), -slots.rows("r"))
    step = multiply(slots.rows("r").expand(num_features, -1), slots.rows("x"), -rate * slots.rows("w"))

    def group(example: int) -> list[Layer]:
        bring = _bring(slots, example, ("r",))
        first = together(say, error) if residual else error
        return [lambda h: first(bring(h)), step]

    reading = [multiply(*_dot(slots, "w", "input", "said"))]
    return Updates(slots=slots, groups=[group(i) for i in range(num_examples)], reading=reading, fill={})


def online_ridge(num_features: int, *, num_examples: int, penalty: float, num_queries: int = 1) -> Updates:
    """Ridge regression on the examples so far, by a rank-one update of the inverse for each."""
    d = num_features
    slots = Slots(
        input=d, target=1, one=1, here=2 * num_examples + num_queries,
        x=d, y=1, u=d, s=1, outer=d * d, inverse=d * d, moment=d, w=d, said=1,
    )  # fmt: skip
    rows, columns = torch.arange(d * d) // d, torch.arange(d * d) % d

    def times(vector: str, write: str) -> tuple[Tensor, Tensor, Tensor]:
        """Rows for the inverse times a vector."""
        return slots.rows("inverse"), slots.rows(vector)[columns], slots.rows(write)[rows]

    first = together(
        multiply(*times("x", "u")),
        multiply(slots.rows("y").expand(d, -1), slots.rows("x"), slots.rows("moment")),
    )
    second = together(
        multiply(*_dot(slots, "x", "u", "s")),
        multiply(slots.rows("u")[rows], slots.rows("u")[columns], slots.rows("outer")),
    )
    third = divide(slots.rows("outer"), slots.rows("one")[0] + slots.rows("s")[0], -slots.rows("inverse"))

    def group(example: int) -> list[Layer]:
        bring = _bring(slots, example, ("u", "s", "outer"))
        return [lambda h: first(bring(h)), second, third]

    return Updates(
        slots=slots,
        groups=[group(i) for i in range(num_examples)],
        reading=[multiply(*times("moment", "w")), multiply(*_dot(slots, "w", "input", "said"))],
        fill={"inverse": torch.eye(d, dtype=torch.float64).flatten() / penalty},
    )
