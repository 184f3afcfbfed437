r"""A transformer with weights set by hand that trains a deep ReLU network on the examples of its prompt.

    f(x) = V_N relu(V_{N-1} .. relu(V_1 x)),   V <- V - rate grad (1/2n) sum_i (f(x_i) - y_i)^2,   L times

Every token holds an example, the whole network, and slots for what passes through it:

    forward    p_k = relu(V_k p_{k-1})                            a layer for each of the N
    backward   d_{k-1} = g_{k-1} (V_k' d_k),  g = 1[p > 0]        a layer for each of the N - 1 hidden ones
    update     V_k <- V_k - (rate/n) sum_i d_k p_{k-1}'           a layer, with softmax two

With ReLU attention, weights relu(<q, k>), a head's score is the inner product of two slots, so that a unit is a head:
2N layers a step, exact but for units less than `ramp` above zero, which count as shut. With softmax attention a token
weighs itself against an empty one, sigmoid(e z) = 1/2 + e z / 4 + O(e^3 z^3): 2N + 1 layers a step, at any tolerance.
After Wu et al. 2024, arXiv:2411.16549, who need at most 2N + 4 layers a step; the construction here is another one.
Shapes: x [batch, time, features], y [batch, time], queries [batch, queries, features]; weights V_k [out, in].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.models.primitives import SHARP, Attention, FeedForward, Layer, Slots, add

FAR = 1e4
"""What is taken from a score that must not count; larger than any score."""

Rows = Float[Tensor, "rows width"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkDescent:
    """The transformer; `widths` are those of the network, from its inputs to its single output.

    backward: without it only the last of the network's layers is trained. ramp, small: how close to exact it is, with
    ReLU attention and with softmax attention.
    """

    widths: tuple[int, ...]
    num_examples: int
    num_queries: int = 1
    rate: float = 0.1
    attention: Literal["relu", "softmax"] = "relu"
    backward: bool = True
    ramp: float = 1e-6
    small: float = 1e-3

    @property
    def depth(self) -> int:
        """N."""
        return len(self.widths) - 1

    @property
    def slots(self) -> Slots:
        """Where a token holds what."""
        sizes = {"here": self.num_examples + self.num_queries + 1, "one": 1, "own": 1, "shown": 1, "y": 1}
        for k, width in enumerate(self.widths):
            sizes |= {f"p{k}": width, f"g{k}": width, f"d{k}": width, f"z{k}": width, f"e{k}": width}
        for k, (before, after) in enumerate(pairwise(self.widths), 1):
            sizes |= {f"V{k}": before * after, f"G{k}": before * after}
        return Slots(**sizes)

    def layers(self) -> list[Layer]:
        """The layers that take one step."""
        slots, hidden = self.slots, range(1, self.depth)
        trained = range(1 if self.backward else self.depth, self.depth + 1)
        pairs = [(self._forward(slots, k), self._activate(slots, k)) for k in range(1, self.depth + 1)]
        if self.backward:
            pairs += [(self._backward(slots, k), self._gate(slots, k)) for k in reversed(hidden)]
        pairs += self._update(slots, trained)
        return [_layer(attend, feed) for attend, feed in pairs]

    def read_outs(
        self,
        weights: Sequence[Float[Tensor, "out in"]],
        x: Float[Tensor, "batch time features"],
        y: Float[Tensor, "batch time"],
        queries: Float[Tensor, "batch queries features"],
        *,
        num_steps: int,
    ) -> list[Float[Tensor, "batch queries"]]:
        """What the network says of the queries before any step and after each."""
        slots, tokens = self.slots, self.num_examples + self.num_queries + 1
        h = slots.fill(x.shape[0], tokens, one=1.0, here=torch.eye(tokens, dtype=torch.float64))
        h[:, :-1, slots["own"]] = 1
        h[:, : self.num_examples, slots["shown"]] = 1
        h[:, : self.num_examples, slots["y"]] = y.unsqueeze(-1)
        h[:, :-1, slots["p0"]] = torch.cat((x, queries), 1)
        for k, matrix in enumerate(weights, 1):
            h[..., slots[f"V{k}"]] = matrix.flatten()
        layers, said = self.layers(), []
        for _ in range(num_steps):
            for number, layer in enumerate(layers, 1):
                h = layer(h)
                if number == self.depth:
                    said.append(self._outputs(h))
        for layer in layers[: self.depth]:
            h = layer(h)
        return [*said, self._outputs(h)]

    def _outputs(self, h: Tensor) -> Tensor:
        return h[:, self.num_examples : -1, self.slots[f"p{self.depth}"]].squeeze(-1)

    def _bilinear(self, slots: Slots, first: Sequence[Rows], second: Sequence[Rows], write: Rows) -> Attention:
        """Heads that write the inner product of two lists of rows, read in the token itself, one head to a row.

        ReLU attention takes two heads, for the positive and the negative part, unless only one is wanted.
        """
        here, one, own = slots.rows("here"), slots.rows("one"), slots.rows("own")
        weigh: Callable[[Tensor], Tensor]
        if self.attention == "relu":
            queries = [torch.cat((sign * part, FAR * here, -FAR * one)) for sign in (1, -1) for part in first]
            keys = [torch.cat((part, here, one)) for part in second] * 2
            outputs, values, weigh = torch.cat((write, -write)).unsqueeze(1), own, torch.relu
        else:
            empty = torch.zeros_like(here)
            empty[-1] = one[0]
            queries = [torch.cat((self.small * part, SHARP * (here + empty))) for part in first]
            keys = [torch.cat((part, here)) for part in second]
            outputs, values, weigh = 4 / self.small * write.unsqueeze(1), own, _softmax
        return Attention(
            queries=torch.stack(queries),
            keys=torch.stack(keys),
            values=values.expand(len(queries), -1, -1),
            outputs=outputs,
            weigh=weigh,
        )

    def _level(self, slots: Slots, name: str) -> tuple[Rows, Float[Tensor, " rows"]]:
        """How to read what `_bilinear` wrote: rows and what to take from them."""
        rows = slots.rows(name)
        level = 0.0 if self.attention == "relu" else 2 / self.small
        return rows, torch.full((len(rows),), level, dtype=rows.dtype)

    def _forward(self, slots: Slots, k: int) -> Attention:
        matrix = slots.rows(f"V{k}").view(self.widths[k], self.widths[k - 1], -1)
        return self._bilinear(slots, list(matrix), [slots.rows(f"p{k - 1}")] * self.widths[k], slots.rows(f"z{k}"))

    def _activate(self, slots: Slots, k: int) -> FeedForward:
        """p_k = relu(z_k) with its gate; for the last layer p = z and the error of the examples that are shown."""
        rows, level = self._level(slots, f"z{k}")
        if k < self.depth:
            p, g = slots.rows(f"p{k}"), slots.rows(f"g{k}")
            rise = rows / self.ramp
            return FeedForward(
                into=torch.cat((rows, rise, rise)),
                out=torch.cat((p, g, -g)),
                bias=torch.cat((-level, -level / self.ramp, -level / self.ramp - 1)),
                activation=F.relu,
            )
        error, hide = rows - slots.rows("y"), FAR * (slots.rows("shown") - slots.rows("one"))
        p, d = slots.rows(f"p{k}"), slots.rows(f"d{k}")
        return FeedForward(
            into=torch.cat((rows, -rows, error + hide, -error + hide)),
            out=torch.cat((p, -p, d, -d)),
            bias=torch.cat((-level, level, -level, level)),
            activation=F.relu,
        )

    def _backward(self, slots: Slots, k: int) -> Attention:
        matrix = slots.rows(f"V{k + 1}").view(self.widths[k + 1], self.widths[k], -1)
        return self._bilinear(
            slots, list(matrix.transpose(0, 1)), [slots.rows(f"d{k + 1}")] * self.widths[k], slots.rows(f"e{k}")
        )

    def _gate(self, slots: Slots, k: int) -> FeedForward:
        """d_k = e_k where the gate is open."""
        rows, level = self._level(slots, f"e{k}")
        shut, d = FAR * (slots.rows(f"g{k}") - slots.rows("one")), slots.rows(f"d{k}")
        return FeedForward(
            into=torch.cat((rows + shut, -rows + shut)),
            out=torch.cat((d, -d)),
            bias=torch.cat((-level, level)),
            activation=F.relu,
        )

    def _update(self, slots: Slots, trained: range) -> list[tuple[Attention, FeedForward]]:
        """The network's change from all examples, and an end to what passed through it."""
        names = [f"{kind}{k}" for k in range(1, self.depth + 1) for kind in "pgdzeG"]
        old = slots.rows(*names)
        clear = add(old, -old, activation=F.relu)
        if self.attention == "relu":
            return [(self._sum_of_products(slots, trained), clear)]
        first, second, write = [], [], []
        for k in trained:
            for m, d in enumerate(slots.rows(f"d{k}")):
                first += [d.unsqueeze(0)] * self.widths[k - 1]
                second += list(slots.rows(f"p{k - 1}").unsqueeze(1))
                write.append(slots.rows(f"G{k}").view(self.widths[k], self.widths[k - 1], -1)[m])
        products = self._bilinear(slots, first, second, torch.cat(write))
        level = self._level(slots, "one")[1]
        settle = add(slots.rows("one"), -level * torch.cat(write).sum(0, keepdim=True), activation=F.relu)
        read = torch.cat([slots.rows(f"G{k}") for k in trained])
        change = torch.cat([slots.rows(f"V{k}") for k in trained])
        mean = Attention(
            queries=SHARP * slots.rows("one").unsqueeze(0),
            keys=slots.rows("shown").unsqueeze(0),
            values=read.unsqueeze(0),
            outputs=-self.rate * change.unsqueeze(0),
            weigh=_softmax,
        )
        return [(products, settle), (mean, clear)]

    def _sum_of_products(self, slots: Slots, trained: range) -> Attention:
        """A head for the positive and one for the negative part of each d_k[m]: its scores are d, its values p."""
        size = max(self.widths)
        keys, values, outputs = [], [], []
        for k in trained:
            before = slots.rows(f"p{k - 1}")
            matrix = slots.rows(f"V{k}").view(self.widths[k], self.widths[k - 1], -1)
            for m, d in enumerate(slots.rows(f"d{k}")):
                for sign in (1, -1):
                    keys.append(sign * d.unsqueeze(0))
                    values.append(F.pad(before, (0, 0, 0, size - len(before))))
                    step = -sign * self.rate / self.num_examples * matrix[m]
                    outputs.append(F.pad(step, (0, 0, 0, size - len(before))))
        return Attention(
            queries=slots.rows("one").expand(len(keys), -1, -1),
            keys=torch.stack(keys),
            values=torch.stack(values),
            outputs=torch.stack(outputs),
            weigh=torch.relu,
        )


def _layer(attend: Attention, feed: FeedForward) -> Layer:
    return lambda h: feed(attend(h))


def _softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1)
