"""What copies do to learners: of a table's only column, of all its examples, of the examples of one class.

    examples about -1 and +1, copied ─▶ any learner ─▶ how certain it is, and how that changes with the copies

Shapes: x [tables, examples], y [tables, examples]; what is said [tables, places].
"""

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.claims.tiny_tables import chances, green, misses, two_sides
from contexture.protocols import Learner

COPIES = (1, 4, 16)
WITHIN = torch.linspace(-2.1, 2.1, 22, dtype=torch.float64)
RIGHT = (WITHIN > 0).double()


def columns_copied(run: Run, learner: Learner, name: str) -> Samples:
    """Certainty with sixteen copies of the only column per that with one."""

    def one(seed: int) -> OneSeed:
        x, y = two_sides(run, seed, 2)

        def with_copies(count: int) -> Tensor:
            wide, asked = (v.unsqueeze(-1).expand(*v.shape, count) for v in (x, WITHIN))
            return chances(learner, wide, y, asked[None])[..., 1]

        said = [with_copies(count) for count in COPIES]
        errors, zero = misses(said[0], RIGHT)
        certain = [(p - 0.5).abs().mean(1) for p in said]
        return OneSeed(
            values=certain[-1],
            per=certain[0],
            errors=errors,
            zero_errors=zero,
            curves={name: (COPIES, torch.stack([c.mean() for c in certain]))},
        )

    return over_seeds(run, one)


def examples_copied(run: Run, learner: Learner, name: str) -> Samples:
    """How much sixteen copies of both of two examples move the probability, in the mean over the line."""

    def one(seed: int) -> OneSeed:
        x, y = two_sides(run, seed, 1)
        said = [green(learner, x.repeat(1, count), y.repeat(1, count), WITHIN) for count in COPIES]
        errors, zero = misses(said[-1], RIGHT)
        moved = [(p - said[0]).abs().mean(1) for p in said]
        return OneSeed(
            values=moved[-1],
            errors=errors,
            zero_errors=zero,
            curves={name: (COPIES, torch.stack([m.mean() for m in moved]))},
        )

    return over_seeds(run, one)


OTHER_SIDE = torch.linspace(0.2, 1, 9, dtype=torch.float64)


def red_copied(run: Run, learner: Learner, name: str) -> Samples:
    """By how much sixteen copies of the left example raise the other class's probability on the right."""

    def one(seed: int) -> OneSeed:
        x, y = two_sides(run, seed, 1)

        def with_copies(count: int) -> Tensor:
            shares = torch.tensor([count, 1])
            return green(learner, x.repeat_interleave(shares, 1), y.repeat_interleave(shares, 1), OTHER_SIDE)

        said = [with_copies(count) for count in COPIES]
        errors, zero = misses(said[0], torch.ones_like(said[0]))
        return OneSeed(
            values=(said[-1] - said[0]).mean(1),
            errors=errors,
            zero_errors=zero,
            curves={name: (COPIES, torch.stack([p.mean() for p in said]))},
        )

    return over_seeds(run, one)
