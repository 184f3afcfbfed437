r"""Transformers with weights set by hand that decide in linear bandits, as LinUCB and Thompson sampling do.

    tokens   (x_1, r_1), .., (x_n, r_n), then those that decide; one of them, or one beside them, holds the arms' phi_a

    LinUCB     theta = A^-1 b,  u_a = A^-1 phi_a;    score_a = theta.phi_a + width sqrt(phi_a.u_a)
    Thompson   w = A^-1 b + noise A^-1/2 g;          score_a = w.phi_a,  with standard normal g in the token
               A = X'X + ridge I,  b = X'r

Every A^-1 c is an accelerated gradient descent with fixed rates, one layer an iteration, for all systems side by side:

    v -> u+ = v - rate ((A + shift I) v - c),   v+ = u+ + momentum (u+ - u)

ReLU attention takes two heads a system, for sum_j relu(+-(x_j.v - r_j)) x_j. A root is a sum of shifted inverses, the
diagonal Pade approximant in partial fractions (Kenney & Laub, 1991),

    A^-1/2 = (s/K) sum_k (cos^2 t_k A + s^2 sin^2 t_k)^-1,   t_k = (2k - 1) pi / 4K,   s^4 = least * largest eigenvalue,

off by at most 2 q^2K / (1 + q^2K), q = (c^1/4 - 1) / (c^1/4 + 1), for a condition number c. The root of a number is
interpolated by ReLU units. After Lin et al. 2023, arXiv:2310.08566; the construction here is another one.
Shapes: x [batch, time, dim], r [batch, time], zero where there is no example yet; arms [batch, arms, dim]; draws
[batch, tokens, dim]; scores [batch, tokens, arms].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.models.primitives import Attention, FeedForward, Layer, Slots, add, pieces, together

Rows = Float[Tensor, "rows width"]


class System(NamedTuple):
    """(A + shift I) u = target, or = b where `target` is None; target names a slot of `dim` coordinates."""

    name: str
    shift: float
    target: str | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RidgeBandit:
    """What both transformers share: the iterations.

    largest: no sum of |x|^2 over a history may exceed it. accelerated: without it the descent has no momentum.
    """

    dim: int
    num_arms: int
    largest: float
    ridge: float = 1.0
    accelerated: bool = True

    @property
    def systems(self) -> Sequence[System]:
        """What has to be solved."""
        raise NotImplementedError

    def reading(self) -> Layer:
        """The last layer, which makes scores of what was solved."""
        raise NotImplementedError

    @cached_property
    def slots(self) -> Slots:
        """Where a token holds what."""
        sizes = {"x": self.dim, "r": 1, "one": 1, "draw": self.dim, "score": self.num_arms, "spread": self.num_arms}
        sizes |= {f"arm{a}": self.dim for a in range(self.num_arms)}
        for system in self.systems:
            sizes |= {f"{part}-{system.name}": self.dim for part in "uvg"}
        return Slots(**sizes)

    def read_outs(
        self,
        x: Float[Tensor, "batch time dim"],
        r: Float[Tensor, "batch time"],
        arms: Float[Tensor, "batch arms dim"],
        draws: Float[Tensor, "batch tokens dim"] | None = None,
        *,
        iterations: Sequence[int],
    ) -> list[Float[Tensor, "batch tokens arms"]]:
        """What the deciding tokens say of every arm after so many iterations, in rising order.

        Without draws there is one deciding token, and it holds the arms itself.
        """
        (batch, time), deciding = r.shape, 1 if draws is None else draws.shape[1] + 1
        slots = self.slots
        h = slots.fill(batch, time + deciding, one=1.0)
        h[:, :time, slots["x"]] = x
        h[:, :time, slots["r"]] = r.unsqueeze(-1)
        for a in range(self.num_arms):
            h[:, -1, slots[f"arm{a}"]] = arms[:, a]
        if draws is not None:
            h[:, time:-1, slots["draw"]] = draws
        attend, step, reading, said = self._gradient(), self._step(), self.reading(), []
        for count in range(1, max(iterations) + 1):
            h = step(attend(h))
            if count in iterations:
                read = reading(h)[:, time:, slots["score"]]
                said.append(read if draws is None else read[:, :-1])
        return said

    def _gradient(self) -> Attention:
        """g = sum_j x_j (x_j.v - r_j), where only the system of the rewards has the r_j."""
        slots, queries, keys, outputs = self.slots, [], [], []
        x, r, one = slots.rows("x"), slots.rows("r"), slots.rows("one")
        for system in self.systems:
            v, g = slots.rows(f"v-{system.name}"), slots.rows(f"g-{system.name}")
            rewarded = float(system.target is None)
            for sign in (1.0, -1.0):
                queries.append(torch.cat((sign * v, -sign * rewarded * one)))
                keys.append(torch.cat((x, r)))
                outputs.append(sign * g)
        return Attention(
            queries=torch.stack(queries),
            keys=torch.stack(keys),
            values=x.expand(len(queries), -1, -1),
            outputs=torch.stack(outputs),
            weigh=torch.relu,
        )

    def _step(self) -> FeedForward:
        """u and v of every system, a linear map by two ReLU units a coordinate; g is emptied for the next layer."""
        slots, parts = self.slots, []
        for system in self.systems:
            low = self.ridge + system.shift
            high = low + self.largest
            root = math.sqrt(high / low)
            momentum = (root - 1) / (root + 1) if self.accelerated else 0.0
            u, v, g = (slots.rows(f"{part}-{system.name}") for part in "uvg")
            stepped = u + (1 + momentum) * v
            # u+ = v - rate (low v + g - target), so that u and v both gain `stepped` times u+.
            parts.append(add(v, (1 - low / high) * stepped - v, activation=F.relu))
            parts.append(add(u, -u - momentum * v, activation=F.relu))
            parts.append(add(g, -stepped / high - g, activation=F.relu))
            if system.target is not None:
                parts.append(add(slots.rows(system.target), stepped / high, activation=F.relu))
        return together(*parts)

    def _products(self, pairs: Sequence[tuple[Rows, str, Rows]]) -> Attention:
        """Heads (read, arm, write) for the inner product of what is read with an arm, which one token alone holds."""
        slots, queries, keys, outputs = self.slots, [], [], []
        for read, arm, write in pairs:
            for sign in (1.0, -1.0):
                queries.append(sign * read)
                keys.append(slots.rows(arm))
                outputs.append(sign * write)
        return Attention(
            queries=torch.stack(queries),
            keys=torch.stack(keys),
            values=slots.rows("one").expand(len(queries), -1, -1),
            outputs=torch.stack(outputs),
            weigh=torch.relu,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LinUCBLayers(RidgeBandit):
    """LinUCB. num_pieces: of the square root, between numbers that stand closer the smaller they are.

    Its largest error in `width` is sqrt(longest / ridge) / (4 num_pieces), where longest is that of |phi_a|^2.
    """

    width: float = 1.0
    num_pieces: int = 200
    longest: float

    @property
    def systems(self) -> Sequence[System]:
        """The weights, and every arm's own."""
        return (System("w", 0.0, None), *(System(f"a{a}", 0.0, f"arm{a}") for a in range(self.num_arms)))

    @property
    def knots(self) -> Float[Tensor, " knots"]:
        """Between which the square root is straight."""
        part = torch.arange(self.num_pieces + 1, dtype=torch.float64) / self.num_pieces
        return self.longest / self.ridge * part.square()

    def reading(self) -> Layer:
        """Heads for theta.phi_a and phi_a.u_a, units for the root."""
        slots, arms = self.slots, range(self.num_arms)
        score, spread = slots.rows("score"), slots.rows("spread")
        pairs = [(slots.rows("u-w"), f"arm{a}", score[a : a + 1]) for a in arms]
        pairs += [(slots.rows(f"u-a{a}"), f"arm{a}", spread[a : a + 1]) for a in arms]
        products = self._products(pairs)
        root = pieces(spread, self.width * score, knots=self.knots, values=self.knots.sqrt())
        return lambda h: root(products(h))

    def without_tokens(
        self,
        x: Float[Tensor, "batch time dim"],
        r: Float[Tensor, "batch time"],
        arms: Float[Tensor, "arms dim"],
        *,
        iterations: Sequence[int],
    ) -> list[Float[Tensor, "batch arms"]]:
        """What accelerated layers come to, by the same iterations on matrices and the root itself."""
        second = x.mT @ x + self.ridge * torch.eye(self.dim, dtype=torch.float64)
        targets = torch.cat((x.mT @ r.unsqueeze(-1), arms.mT.expand(len(second), -1, -1)), -1)
        high = self.ridge + self.largest
        root = (high / self.ridge) ** 0.5
        momentum = (root - 1) / (root + 1)
        u = v = torch.zeros_like(targets)
        said = []
        for count in range(1, max(iterations) + 1):
            before, u = u, v - (second @ v - targets) / high
            v = u + momentum * (u - before)
            if count in iterations:
                spread = torch.einsum("ad,bda->ba", arms, u[..., 1:]).clamp(min=0).sqrt()
                said.append((arms @ u[..., :1]).squeeze(-1) + self.width * spread)
        return said


@dataclass(frozen=True, kw_only=True, eq=False)
class ThompsonLayers(RidgeBandit):
    """Thompson sampling: every deciding token has a draw of its own. num_fractions: the K of the root."""

    noise: float
    num_fractions: int = 4

    @property
    def fractions(self) -> list[tuple[float, float]]:
        """The shift and the weight of each inverse in A^-1/2."""
        return fractions(self.num_fractions, least=self.ridge, largest=self.ridge + self.largest)

    @property
    def systems(self) -> Sequence[System]:
        """The mean, and the draw in every fraction."""
        shifts = enumerate(shift for shift, _ in self.fractions)
        return (System("w", 0.0, None), *(System(f"k{k}", shift, "draw") for k, shift in shifts))

    def reading(self) -> Layer:
        """A head for the inner product of each arm with the weights that were drawn."""
        slots, drawn = self.slots, self.slots.rows("u-w")
        for k, (_, weight) in enumerate(self.fractions):
            drawn = drawn + self.noise * weight * slots.rows(f"u-k{k}")
        score = slots.rows("score")
        return self._products([(drawn, f"arm{a}", score[a : a + 1]) for a in range(self.num_arms)])


def fractions(count: int, *, least: float, largest: float) -> list[tuple[float, float]]:
    """(shift, weight) with sum_k weight / (a + shift) close to a^-1/2 for a from `least` to `largest`.

    >>> round(sum(weight / (4.0 + shift) for shift, weight in fractions(8, least=1.0, largest=16.0)), 6)
    0.5
    """
    scale = (least * largest) ** 0.25
    angles = [(2 * k - 1) * math.pi / (4 * count) for k in range(1, count + 1)]
    return [((scale * math.tan(t)) ** 2, scale / (count * math.cos(t) ** 2)) for t in angles]


def root_error(count: int, *, least: float, largest: float) -> float:
    """The most by which `count` fractions miss the root, relative."""
    quarter = (largest / least) ** 0.25
    power: float = ((quarter - 1) / (quarter + 1)) ** (2 * count)
    return 2 * power / (1 + power)


def root_missed(count: int, *, least: float, largest: float, scaled_to: float | None = None) -> float:
    """The most by which `count` fractions miss the root, relative, over 200 numbers from `least` to `largest`.

    scaled_to: the largest number that the fractions are made for, if it is another one.
    """
    at = torch.linspace(math.log(least), math.log(largest), 200, dtype=torch.float64).exp()
    shifts, weights = torch.tensor(fractions(count, least=least, largest=scaled_to or largest)).double().unbind(1)
    said = (weights / (at.unsqueeze(1) + shifts)).sum(1)
    return float((said * at.sqrt() - 1).abs().amax())
