"""What learners make of tables with one column: far beyond the examples, between mirror images, in waves, in jumps.

    examples on a line ─▶ any learner ─▶ probability of the class on the right, at every x

Shapes: x [tables, examples], y [tables, examples]; what is said [tables, places].
"""

import math

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.claims.tiny_tables import chances, green, misses, table, two_sides
from contexture.protocols import Learner
from contexture.tasks.draws import normal, uniform

LINE = torch.linspace(-6, 6, 49, dtype=torch.float64)
FAR, AT = torch.tensor([-16.0, 16.0]).double(), torch.tensor([-1.0, 1.0]).double()
SIDES = (AT > 0).double()


def beyond(run: Run, learner: Learner, name: str) -> Samples:
    """Certainty, the distance from one half, at -16 and 16 per that at -1 and 1."""

    def one(seed: int) -> OneSeed:
        x, y = two_sides(run, seed, 4)
        said = green(learner, x, y, torch.cat((FAR, AT, LINE)))
        far, near, line = said.tensor_split((2, 4), 1)
        errors, zero = misses(near, SIDES)
        return OneSeed(
            values=(far - 0.5).abs().mean(1),
            per=(near - 0.5).abs().mean(1),
            errors=errors,
            zero_errors=zero,
            curves={name: (LINE.tolist(), line.mean(0))},
        )

    return over_seeds(run, one)


def mirrored(run: Run, learner: Learner, name: str) -> Samples:
    """How far p(x) + p(-x) is from 1 for tables that are their own mirror image, per that of a single order."""

    def one(seed: int) -> OneSeed:
        left, _ = two_sides(run, seed, 1)
        x = torch.cat((left, -left), 1)
        y = (x > 0).long()
        by_one, said = (green(asked, x, y, LINE) for asked in (table(1), learner))
        errors, zero = misses(said, (LINE > 0).double())
        lopsided = (by_one + by_one.flip(1) - 1).abs().mean(1)
        skew = said + said.flip(1) - 1
        return OneSeed(
            values=skew.abs().mean(1),
            per=lopsided,
            errors=errors,
            zero_errors=zero,
            curves={name: (LINE.tolist(), skew.mean(0))},
        )

    return over_seeds(run, one)


AHEAD = torch.linspace(-1.95, 1.95, 40, dtype=torch.float64)


def waves(run: Run, learner: Learner, name: str, *, knows: bool = False) -> Samples:
    """The probability of the right class in the two periods that follow five periods of a square wave."""

    def one(seed: int) -> OneSeed:
        tables = run.setting("tables", smoke=2, cpu=48)
        generator = run.generator(seed, "waves")
        start = uniform(tables, 1, generator=generator)
        x = -5 * (torch.arange(60) + uniform(tables, 60, generator=generator)) / 60

        def label(place: Tensor) -> Tensor:
            return ((place + start) % 1 < 0.5).long()

        def shown(place: Tensor) -> Tensor:
            angle = 2 * math.pi * place
            return torch.stack((angle.cos(), angle.sin()), 2) if knows else place.unsqueeze(2)

        places = AHEAD.expand(tables, -1)
        said = chances(learner, shown(x), label(x), shown(places)).gather(2, label(places).unsqueeze(2)).squeeze(2)
        share = said[:, AHEAD > 0].mean(1)
        return OneSeed(
            values=share,
            errors=1 - share,
            zero_errors=torch.full_like(share, 0.5),
            curves={name: (AHEAD.tolist(), said.mean(0))},
        )

    return over_seeds(run, one)


MOST_TURNS = 12


def alternating(run: Run, learner: Learner, name: str) -> Samples:
    """How certain of the examples themselves, twelve of either class in turn; per that for one of either class."""

    def one(seed: int) -> OneSeed:
        tables = run.setting("tables", smoke=2, cpu=48)
        counts = run.setting("turns", smoke=(1, MOST_TURNS), cpu=(1, 2, 3, 4, 6, 8, MOST_TURNS))
        drawn = 0.2 * normal(tables, 2 * MOST_TURNS, generator=run.generator(seed, "turns"))

        def certain(turns: int) -> Tensor:
            x = torch.arange(2 * turns) + drawn[:, : 2 * turns]
            y = (torch.arange(2 * turns) % 2).expand(tables, -1).contiguous()
            said = chances(learner, x.unsqueeze(2), y, x.unsqueeze(2)).gather(2, y.unsqueeze(2)).squeeze(2)
            return said.mean(1)

        found = [certain(turns) for turns in counts]
        return OneSeed(
            values=found[-1] - 0.5,
            per=found[0] - 0.5,
            errors=1 - found[0],
            zero_errors=torch.full_like(found[0], 0.5),
            curves={name: (counts, torch.stack([f.mean() for f in found]))},
        )

    return over_seeds(run, one)


FINE = torch.linspace(-2, 2, 301, dtype=torch.float64)
STEEPEST = (1, 3, 8, 15, 30, 60, 150, 300)


def jumps(run: Run, learner: Learner, name: str) -> Samples:
    """The share of the probability's way up and down the line that lies in the steepest twentieth of 300 steps."""

    def one(seed: int) -> OneSeed:
        tables = run.setting("tables of noisy labels", smoke=2, cpu=24)
        generator = run.generator(seed, "noisy")
        x = normal(tables, 16, generator=generator)
        y = (uniform(tables, 16, generator=generator) < torch.sigmoid(3 * x)).long()
        said = green(learner, x, y, FINE)
        sizes = said.diff(dim=1).abs().sort(1, descending=True).values.cumsum(1)
        # A learner that has seen one class alone may say the same everywhere, and has no way to go.
        shares = sizes / sizes[:, -1:].clamp_min(1e-12)
        errors, zero = misses(said, torch.sigmoid(3 * FINE))
        line = torch.stack([shares[:, count - 1].mean() for count in STEEPEST])
        return OneSeed(
            values=shares[:, 14],
            errors=errors,
            zero_errors=torch.full_like(zero, float((torch.sigmoid(3 * FINE) - 0.5).square().mean())),
            curves={name: (STEEPEST, line)},
        )

    return over_seeds(run, one)
