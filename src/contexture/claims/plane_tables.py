"""What learners make of tables with two columns: whose cells their classes are, how sure they are, how much they lose.

    points of the plane in two classes or more ─▶ any learner ─▶ probability of each class, beside the true one

Shapes: x [tables, examples, 2], y [tables, examples]; queries [tables, queries, 2].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.claims.tiny_tables import chances, misses
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.logistic import Logistic
from contexture.learners.standardized import Standardized
from contexture.protocols import Learner
from contexture.tasks.draws import normal, uniform

NUM_CLASSES = 6


def cells(run: Run, learner: Callable[[int], Learner], name: str, *, single: bool = False) -> Samples:
    """The share of the square where the likeliest class is that of the nearest of six examples, one of each class."""
    sizes = run.setting("orders", smoke=(1, 4), cpu=(1, 4, 16))

    def one(seed: int) -> OneSeed:
        tables = run.setting("tables of points", smoke=2, cpu=32)
        generator = run.generator(seed, "points")
        x = uniform(tables, NUM_CLASSES, 2, generator=generator)
        queries = uniform(tables, 100, 2, generator=generator)
        y = torch.arange(NUM_CLASSES).expand(tables, -1).contiguous()
        wanted = torch.cdist(queries, x).argmin(2)

        def agreed(size: int) -> Tensor:
            said = chances(learner(size), x, y, queries, num_classes=NUM_CLASSES).argmax(2)
            return (said == wanted).double().mean(1)

        shares = {size: agreed(size) for size in sizes}
        share = shares[sizes[0 if single else -1]]
        return OneSeed(
            values=share,
            errors=1 - share,
            zero_errors=torch.full_like(share, 1 - 1 / NUM_CLASSES),
            curves={name: (sizes, torch.stack([part.mean() for part in shares.values()]))},
        )

    return over_seeds(run, one)


NUM_PARTS = 5


def honest(run: Run, learner: Learner | None, name: str) -> Samples:
    """How far the probability of the likelier class exceeds its true one, at which it is right.

    Logistic functions of two columns, 32 examples; None is the learner that knows the function.
    """

    def one(seed: int) -> OneSeed:
        tables = run.setting("tables of logistic functions", smoke=8, cpu=64)
        generator = run.generator(seed, "logistic")
        x = normal(tables, 32 + 24, 2, generator=generator)
        true = torch.sigmoid((x @ (2 * normal(tables, 2, 1, generator=generator))).squeeze(2))
        y = (uniform(*true.shape, generator=generator) < true).long()
        asked = true[:, 32:] if learner is None else chances(learner, x[:, :32], y[:, :32], x[:, 32:])[..., 1]
        sure = torch.maximum(asked, 1 - asked)
        right = torch.where(asked > 0.5, true[:, 32:], 1 - true[:, 32:])
        order = sure.flatten().argsort()
        fifths = (sure - right).flatten()[order].chunk(NUM_PARTS)
        return OneSeed(
            values=(sure - right).mean(1),
            errors=1 - right.mean(1),
            zero_errors=torch.full_like(right[:, 0], 0.5),
            curves={name: (range(1, NUM_PARTS + 1), torch.stack([part.mean() for part in fifths]))},
        )

    return over_seeds(run, one)


SIZES = (8, 16, 32, 64)
RIVALS: tuple[Learner, ...] = (
    Standardized(Logistic()),
    Standardized(GaussianProcess()),
    Standardized(KNearestNeighbours(k=3)),
)


def shapes(run: Run, seed: int, tables: int, count: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Points of the plane in one class within a half, a band, two quarters and a disc; a twentieth is wrongly shown."""
    generator = run.generator(seed, "shapes", count)
    x = [normal(tables, count + 32, 2, generator=generator) for _ in range(4)]
    turned = 2 * math.pi * uniform(tables, 1, generator=generator)
    along = [part[..., 0] * turned.cos() + part[..., 1] * turned.sin() for part in x]
    heights = [along[0], 0.67 - along[1].abs(), x[2][..., 0] * x[2][..., 1], 1.18 - x[3].norm(dim=2)]
    wrong = [uniform(tables, count + 32, generator=generator) < 0.05 for _ in x]
    shown = [((height > 0) ^ off).long() for height, off in zip(heights, wrong, strict=True)]
    return x, shown, [(height > 0).double() * 0.9 + 0.05 for height in heights]


def losses(said: Tensor, y: Tensor) -> Tensor:
    """The log-loss of each table's queries; a probability counts as a hundredth at least."""
    right = torch.where(y == 1, said, 1 - said)
    return -right.clamp(0.01, 0.99).log().mean(1)


def beside_best(run: Run, learner: Learner | None, name: str) -> Samples:
    """The log-loss over that of the best of three learners, in hindsight for each shape; None knows the shape."""
    curve_sizes = run.setting("examples", smoke=(32,), cpu=SIZES)
    tables = run.setting("tables of each shape", smoke=2, cpu=16)

    def of(asked: Learner | None, x: Tensor, y: Tensor, true: Tensor, count: int) -> Tensor:
        if asked is None:
            return true[:, count:]
        return chances(asked, x[:, :count], y[:, :count], x[:, count:])[..., 1]

    def one(seed: int) -> OneSeed:
        lines, found = [], {}
        for count in curve_sizes:
            ours, best, squares = [], [], []
            for x, y, true in zip(*shapes(run, seed, tables, count), strict=True):
                said = of(learner, x, y, true, count)
                ours.append(losses(said, y[:, count:]))
                rivals = [losses(of(rival, x, y, true, count), y[:, count:]) for rival in RIVALS]
                best.append(min(rivals, key=lambda loss: float(loss.mean())))
                squares.append(misses(said, y[:, count:])[0])
            found[count] = (torch.cat(ours), torch.cat(best), torch.cat(squares))
            lines.append(found[count][0].mean() / found[count][1].mean())
        ours_at, best_at, errors = found[32]
        return OneSeed(
            values=ours_at,
            per=best_at,
            errors=errors,
            zero_errors=torch.full_like(errors, 0.25),
            curves={name: (curve_sizes, torch.stack(lines))},
        )

    return over_seeds(run, one)
