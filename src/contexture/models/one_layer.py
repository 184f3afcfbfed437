r"""A single transformer layer with weights set by hand that approximates a map from sequences to sequences.

    F(x)_i = sum_m a_im cos(<w_im, x> + b_im)          i = 1..n, x = (x_1, .., x_n) the whole sequence

    attention       a head for every position j copies x_j to each token, which then holds the whole sequence
    feed-forward    token i has its own units relu(<w, x> + b - t_k), shut elsewhere by a bias; they interpolate the
                    cosine between knots t_k on the range that <w, x> + b takes for x in [0, 1]

With K intervals of length h to a term, the error is at most h^2 / 8 = O(K^-2) times sum |a|. Sums of cosines are dense
in the continuous functions on a cube, so that this reaches any continuous map (Gumaan 2025, arXiv:2507.10581, proves
it in another way).
Shapes: x [batch, positions, features]; directions [positions, terms, positions * features].
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.models.primitives import FeedForward, Slots, move

SHUT = 1e3
"""What keeps a token from another token's units."""
RIDGE = 1e-8
"""What makes the least-squares problem of a fitted layer solvable, beside sums over thousands of samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CosineMap:
    """The map F, one sum of cosines for every position."""

    directions: Float[Tensor, "positions terms inputs"]
    phases: Float[Tensor, "positions terms"]
    amplitudes: Float[Tensor, "positions terms"]

    def __call__(self, x: Float[Tensor, "batch positions features"]) -> Float[Tensor, "batch positions"]:
        """F(x).

        >>> one = CosineMap(directions=torch.zeros(1, 1, 1), phases=torch.zeros(1, 1), amplitudes=torch.ones(1, 1))
        >>> one(torch.rand(2, 1, 1))
        tensor([[1.],
                [1.]])
        """
        angles = torch.einsum("pmi,bi->bpm", self.directions, x.flatten(1)) + self.phases
        return (self.amplitudes * angles.cos()).sum(-1)

    def given_own(self, num_features: int) -> "CosineMap":
        """The mean of F(x)_i for x uniform on [0, 1], given x_i alone: the best that any position-wise map can say.

        An unknown coordinate u with weight w turns cos(w u + b) into sin(w/2) / (w/2) cos(w/2 + b).
        """
        own = torch.eye(len(self.directions), dtype=self.directions.dtype).repeat_interleave(num_features, 1).bool()
        known, rest = (self.directions.where(mask.unsqueeze(1), 0) for mask in (own, ~own))
        # torch.sinc(u) is sin(pi u) / (pi u).
        shrunk = torch.sinc(rest / (2 * torch.pi)).prod(-1)
        return CosineMap(directions=known, phases=self.phases + rest.sum(-1) / 2, amplitudes=self.amplitudes * shrunk)


@dataclass(frozen=True, kw_only=True, eq=False)
class OneLayer:
    """One layer over sequences of so many positions: attention that copies, then a network of position-wise units.

    Without `copies` a token finds its own input where the others' would be: the network sees one position alone.
    """

    num_positions: int
    num_features: int
    feed: FeedForward
    copies: bool = True

    def __call__(self, x: Float[Tensor, "batch positions features"]) -> Float[Tensor, "batch positions"]:
        """What the layer makes of sequences."""
        slots = _slots(self.num_positions, self.num_features)
        h = slots.fill(len(x), self.num_positions, own=x, here=torch.eye(self.num_positions), one=1.0)
        heads = [
            (j if self.copies else None, slots.rows("own"), slots.rows(f"x{j}")) for j in range(self.num_positions)
        ]
        return self.feed(move(slots, heads)(h))[..., slots["said"]].squeeze(-1)

    @property
    def hidden(self) -> int:
        """The width of the network."""
        return len(self.feed.into)


def _slots(num_positions: int, num_features: int) -> Slots:
    """Where a token holds its input, its position, the whole sequence and the answer."""
    copies = {f"x{j}": num_features for j in range(num_positions)}
    return Slots(own=num_features, here=num_positions, one=1, **copies, said=1)


def _units(
    slots: Slots,
    ridges: Float[Tensor, "positions units inputs"],
    bias: Float[Tensor, "positions units"],
    out: Float[Tensor, "positions units"],
    level: Float[Tensor, " positions"],
) -> FeedForward:
    """sum_u out_iu relu(<ridge_iu, x> + bias_iu) + level_i at position i."""
    num_positions = len(ridges)
    sequence = slots.rows(*(f"x{j}" for j in range(num_positions)))
    here, shut = slots.rows("here"), SHUT * (slots.rows("here") - slots.rows("one"))
    open_to_one = (ridges @ sequence + shut.unsqueeze(1)).flatten(0, 1)
    return FeedForward(
        into=torch.cat((open_to_one, here)),
        out=torch.cat((out.flatten(), level)).unsqueeze(1) * slots.rows("said"),
        bias=torch.cat((bias.flatten(), torch.zeros_like(level))),
        activation=F.relu,
    )


def interpolate(target: CosineMap, *, num_features: int, intervals: int, copies: bool = True) -> OneLayer:
    """The layer that approximates `target` with `intervals` units to each cosine."""
    num_positions = len(target.directions)
    # Of <w, x> + b for x in [0, 1]: from the sum of the negative weights to that of the positive ones.
    low = target.directions.clamp(max=0).sum(-1, keepdim=True) + target.phases.unsqueeze(-1)
    high = target.directions.clamp(min=0).sum(-1, keepdim=True) + target.phases.unsqueeze(-1)
    knots = low + (high - low) * torch.linspace(0, 1, intervals + 1).to(low)
    slopes = knots.cos().diff() / knots.diff().clamp_min(torch.finfo(low.dtype).tiny)
    turns = torch.cat((slopes[..., :1], slopes.diff()), -1) * target.amplitudes.unsqueeze(-1)
    feed = _units(
        _slots(num_positions, num_features),
        target.directions.repeat_interleave(intervals, 1),
        (target.phases.unsqueeze(-1) - knots[..., :-1]).flatten(1),
        turns.flatten(1),
        (target.amplitudes * low.squeeze(-1).cos()).sum(-1),
    )
    return OneLayer(num_positions=num_positions, num_features=num_features, feed=feed, copies=copies)


def fit(
    x: Float[Tensor, "batch positions features"],
    y: Float[Tensor, "batch positions"],
    *,
    units: int,
    generator: torch.Generator,
    copies: bool = True,
) -> OneLayer:
    """A layer whose units have kinks at random places and whose last weights are fitted to samples by least squares."""
    _, num_positions, num_features = x.shape
    inputs = num_positions * num_features
    ridges = F.normalize(torch.randn(units, inputs, generator=generator, dtype=x.dtype), dim=1)
    bias = -(ridges * torch.rand(units, inputs, generator=generator, dtype=x.dtype)).sum(1)
    level, outs = [], []
    for position in range(num_positions):
        seen = x.flatten(1) if copies else x[:, position].repeat(1, num_positions)
        hidden = F.pad((seen @ ridges.mT + bias).relu(), (0, 1), value=1.0)
        second = hidden.mT @ hidden
        second.diagonal().add_(RIDGE)
        solved = torch.linalg.solve(second, hidden.mT @ y[:, position])
        outs.append(solved[:-1])
        level.append(solved[-1])
    feed = _units(
        _slots(num_positions, num_features),
        ridges.expand(num_positions, -1, -1),
        bias.expand(num_positions, -1),
        torch.stack(outs),
        torch.stack(level),
    )
    return OneLayer(num_positions=num_positions, num_features=num_features, feed=feed, copies=copies)
