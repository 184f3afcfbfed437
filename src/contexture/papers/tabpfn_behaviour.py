r"""What exactly has TabPFN learned to do? (McCarter 2025): the functions that a learner makes of tiny tables.

    table of n examples ─▶ learner (a black box) ─▶ p(class | x) at every x, in one or two dimensions

The learner is this repository's own, `contexture.load("tables")`: another network than the paper's, trained on another
prior, so that each sentence is asked of it anew. What other learners make of the same examples stands beside it.
Shapes: x [tables, examples, columns], y [tables, examples], queries [tables, queries, columns].
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.tiny_tables import chances, green, misses, table, two_sides
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.logistic import Logistic
from contexture.learners.classical.naive_bayes import NaiveBayes
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.classical.random_forest import RandomForest
from contexture.learners.standardized import Standardized
from contexture.protocols import Learner
from contexture.tasks.draws import normal, uniform

PAPER = Paper(
    key="tabpfn-behaviour",
    title="What exactly has TabPFN learned to do?",
    authors="Calvin McCarter",
    year=2025,
    arxiv="2502.08978",
    uses=("table-transformer", "logistic", "gaussian-process", "nearest-neighbour", "knn", "naive-bayes"),
    left_out={
        "on gene expressions it nearly equals logistic regression": "needs the bladder batch data, whose 22,283 "
        "columns no learner here takes",
        "on images as tables it is level with others while there are few": "needs MNIST and CIFAR-10 as tables of 784 "
        "and 3,072 columns",
    },
)

PLANE, PROCESS = Standardized(Logistic()), Standardized(GaussianProcess())
NEAREST = NearestNeighbour()
FOREST = RandomForest(num_trees=20)
COPIES = (1, 4, 16)


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


BY_PLACE = Axes(x="x; four examples of either class about -1 and 1", y="probability of the class on the right")


@claim(
    "Between two classes on a line its probability is not monotone: far beyond the examples it grows uncertain again.",
    threshold=0.9,
    direction="below",
    why="at 1 it is as certain sixteen times as far out as among the examples; a tenth less is more than rounding",
    kind="trained",
    axes=BY_PLACE,
)
def beyond_the_examples(run: Run) -> Samples:
    """The shipped learner."""
    return beyond(run, table(), "table transformer")


@beyond_the_examples.reference("a Gaussian process, which goes back to its prior")
def beyond_the_examples_process(run: Run) -> Samples:
    """One half far away."""
    return beyond(run, PROCESS, "Gaussian process")


@beyond_the_examples.control("logistic regression is monotone, and the more certain the further out")
def beyond_the_examples_logistic(run: Run) -> Samples:
    """A sigmoid."""
    return beyond(run, PLANE, "logistic regression")


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


@claim(
    "An ensemble over orders takes most of the asymmetry away that a single pass shows on symmetric examples.",
    threshold=0.5,
    direction="below",
    why="less than half is left; what turning the line round changes cannot be averaged over orders of classes",
    kind="trained",
    axes=Axes(x="x", y="p(x) + p(-x) - 1, for tables that are symmetric"),
)
def symmetric(run: Run) -> Samples:
    """Four members."""
    return mirrored(run, table(), "four orders")


@symmetric.reference("a Gaussian process is as symmetric as its examples")
def symmetric_process(run: Run) -> Samples:
    """Rounding."""
    return mirrored(run, PROCESS, "Gaussian process")


@symmetric.control("one pass, without an ensemble")
def symmetric_single(run: Run) -> Samples:
    """What the others are measured by."""
    return mirrored(run, table(1), "one order")


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


@claim(
    "Copies of a column push its probabilities away from one half.",
    threshold=1.1,
    direction="above",
    why="a tenth more certain with sixteen copies than with one",
    kind="trained",
    expected="not-held",
    tried="one example of either class or sixteen at random, sixteen columns or sixty-four: probabilities stay "
    "about where they are, the network being trained on tables with copied columns",
    axes=Axes(x="copies of the column", y="distance from one half", log_x=True),
)
def copied_columns(run: Run) -> Samples:
    """Two examples of either class."""
    return columns_copied(run, table(), "table transformer")


@copied_columns.reference("logistic regression, which can share a weight among columns at less cost")
def copied_columns_logistic(run: Run) -> Samples:
    """A penalty on squares."""
    return columns_copied(run, PLANE, "logistic regression")


@copied_columns.control("the nearest neighbour is the same, whatever the copies")
def copied_columns_nearest(run: Run) -> Samples:
    """Distances all grow alike."""
    return columns_copied(run, NEAREST, "nearest neighbour")


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


@claim(
    "Copying all examples has no effect that one would see.",
    threshold=0.05,
    direction="below",
    why="a change of probability by a twentieth can be seen in a plot",
    kind="trained",
    expected="not-held",
    tried="two to sixteen copies: unlike the paper's, this learner takes copies for further examples and grows certain",
    axes=Axes(x="copies of both examples", y="change of probability", log_x=True, rule=True),
)
def copied_examples(run: Run) -> Samples:
    """One example of either class, sixteen times."""
    return examples_copied(run, table(), "table transformer")


@copied_examples.reference("the nearest neighbour stays the nearest")
def copied_examples_nearest(run: Run) -> Samples:
    """No change."""
    return examples_copied(run, NEAREST, "nearest neighbour")


@copied_examples.control("logistic regression trusts copies as it would further examples")
def copied_examples_logistic(run: Run) -> Samples:
    """Its penalty weighs less."""
    return examples_copied(run, PLANE, "logistic regression")


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


@claim(
    "Copies of one class's only example raise the other class's probability on its own side.",
    threshold=0.05,
    direction="above",
    why="a change of probability by a twentieth can be seen in a plot",
    kind="trained",
    axes=Axes(x="copies of the example on the left", y="probability of the other class on the right", log_x=True),
)
def copied_class(run: Run) -> Samples:
    """One example of either class, the left one sixteen times."""
    return red_copied(run, table(), "table transformer")


@copied_class.reference("naive Bayes, to which a class of equal examples is a narrow one")
def copied_class_bayes(run: Run) -> Samples:
    """A normal law for each class."""
    return red_copied(run, NaiveBayes(), "naive Bayes")


@copied_class.control("logistic regression moves its boundary away from the class that has more examples")
def copied_class_logistic(run: Run) -> Samples:
    """On x as it is: the copies' mean would move the units of a standardised one."""
    return red_copied(run, Logistic(), "logistic regression")


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


@claim(
    "It does not go on with a pattern that repeats: beyond five periods it is about as much for the wrong class.",
    threshold=0.75,
    direction="below",
    why="half way between guessing and going on with the pattern",
    kind="trained",
    axes=Axes(x="periods after the last example", y="probability of the right class"),
)
def periodic(run: Run) -> Samples:
    """Sixty examples of a square wave."""
    return waves(run, table(), "table transformer")


@periodic.reference("a Gaussian process whose kernel knows no period")
def periodic_process(run: Run) -> Samples:
    """One half far away."""
    return waves(run, PROCESS, "Gaussian process")


@periodic.control("logistic regression that is told the period goes on")
def periodic_told(run: Run) -> Samples:
    """Cosine and sine as columns."""
    return waves(run, PLANE, "told the period", knows=True)


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


@claim(
    "The more often the classes take turns, the nearer to one half it stays, even at the examples.",
    threshold=0.5,
    direction="below",
    why="half of the certainty that two examples give",
    kind="trained",
    axes=Axes(x="examples of either class, in turn", y="probability of the right class at the examples"),
)
def turns(run: Run) -> Samples:
    """Twelve of either class."""
    return alternating(run, table(), "table transformer")


@turns.reference("a Gaussian process that takes it for noise")
def turns_process(run: Run) -> Samples:
    """Lengths of highest evidence."""
    return alternating(run, PROCESS, "Gaussian process")


@turns.control("the nearest neighbour stays certain")
def turns_nearest(run: Run) -> Samples:
    """Every example is its own neighbour."""
    return alternating(run, NEAREST, "nearest neighbour")


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


@claim(
    "With one example of each class in the plane, the ensemble's classes are the cells of the nearest example.",
    threshold=0.8,
    direction="above",
    why="four fifths of the square; six classes guessed would agree on a sixth",
    kind="trained",
    expected="not-held",
    tried="three to nine classes, ensembles of one to sixteen orders: between three fifths and three quarters of the "
    "square agree, and the ensemble adds a few hundredths",
    axes=Axes(x="orders in the ensemble", y="share of the square that agrees", log_x=True, rule=True),
)
def voronoi(run: Run) -> Samples:
    """Sixteen orders of columns and classes."""
    return cells(run, table, "table transformer")


@voronoi.reference("the nearest neighbour by the workbench's own learner")
def voronoi_nearest(run: Run) -> Samples:
    """The cells themselves."""
    return cells(run, lambda _: NEAREST, "nearest neighbour")


@voronoi.control("a single order cuts the plane otherwise")
def voronoi_single(run: Run) -> Samples:
    """The same network without an ensemble."""
    return cells(run, table, "table transformer", single=True)


FINE = torch.linspace(-2, 2, 301, dtype=torch.float64)
STEEPEST = (1, 3, 8, 15, 30, 60, 150, 300)


def steps(run: Run, learner: Learner, name: str) -> Samples:
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


@claim(
    "Its function is smooth.",
    threshold=0.5,
    direction="below",
    why="equal steps would leave a twentieth of the way to a twentieth of the steps; at a half most is jumps",
    kind="trained",
    expected="not-held",
    tried="one order or an ensemble of sixteen: most of the way lies in jumps at the examples, where a cell's rank "
    "among the context's cells changes, which the network is shown",
    axes=Axes(x="steepest steps of 300", y="share of the way", log_x=True),
)
def smooth(run: Run) -> Samples:
    """Sixteen examples with noisy classes."""
    return steps(run, table(), "table transformer")


@smooth.reference("a Gaussian process with a smooth kernel")
def smooth_process(run: Run) -> Samples:
    """No jumps."""
    return steps(run, PROCESS, "Gaussian process")


@smooth.control("a random forest is all jumps")
def smooth_forest(run: Run) -> Samples:
    """Steps between examples."""
    return steps(run, FOREST, "random forest")


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


@claim(
    "It is about as often right as it says: on small tables its probabilities can be believed.",
    threshold=0.05,
    direction="below",
    why="five in a hundred more certain than right, where a learner that is always certain is thirty",
    kind="trained",
    axes=Axes(x="fifth of the queries, the least certain first", y="certainty less the share that is right", rule=True),
)
def calibrated(run: Run) -> Samples:
    """Thirty-two examples."""
    return honest(run, table(), "table transformer")


@calibrated.reference("the probabilities by which the classes were drawn")
def calibrated_truth(run: Run) -> Samples:
    """Nothing is learned."""
    return honest(run, None, "the truth")


@calibrated.control("the nearest neighbour, which is always certain")
def calibrated_nearest(run: Run) -> Samples:
    """One example decides."""
    return honest(run, NEAREST, "nearest neighbour")


SIZES = (8, 16, 32, 64)
RIVALS: tuple[Learner, ...] = (PLANE, PROCESS, Standardized(KNearestNeighbours(k=3)))


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


def beside(run: Run, learner: Learner | None, name: str) -> Samples:
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


@claim(
    "Without being told which function it is, it comes close to the best of three learners for each.",
    threshold=1.1,
    direction="below",
    why="a tenth of the log-loss above the best of logistic regression, a Gaussian process and three neighbours",
    kind="trained",
    axes=Axes(x="examples", y="log-loss over that of the best of three", log_x=True, rule=True),
    leaves_out="more than two columns: docs/shipped.md has real tables",
)
def brilliant(run: Run) -> Samples:
    """Halves, bands, quarters and discs of the plane, 32 examples."""
    return beside(run, table(), "table transformer")


@brilliant.reference("the probabilities of one who knows the shape")
def brilliant_truth(run: Run) -> Samples:
    """Nothing is learned."""
    return beside(run, None, "the truth")


@brilliant.control("logistic regression, to which every shape is a half")
def brilliant_logistic(run: Run) -> Samples:
    """The best for one shape of four."""
    return beside(run, PLANE, "logistic regression")


Say = Callable[[Tensor, Tensor, Tensor], Tensor]


def bare(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """The network's own forward pass, without a canonical order or an ensemble."""
    model = table().model
    with torch.no_grad():
        found = model(
            torch.cat((x, queries), 1).float(),
            y.float(),
            categorical=torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool),
            num_classes=torch.full(x.shape[:1], 3),
        )
    chances: Tensor = found.class_logits[..., :3].softmax(2).double()
    return chances


def rearranged(run: Run, say: Say, name: str) -> Samples:
    """The change of probability when examples, columns and classes change their order, and columns their units."""

    def one(seed: int) -> OneSeed:
        tables = run.setting("tables of three columns", smoke=2, cpu=48)
        generator = run.generator(seed, "order")
        x = normal(tables, 24 + 16, 3, generator=generator)
        y = (x + 0.5 * normal(*x.shape, generator=generator)).argmax(2)
        x, queries, y, asked = x[:, :24], x[:, 24:], y[:, :24], y[:, 24:]
        first, orders = say(x, y, queries), torch.tensor([2, 0, 1])
        other = 3.7 * x - 1.3, 3.7 * queries - 1.3
        rows = torch.randperm(24, generator=generator)
        moved = say(other[0][:, rows][:, :, orders], orders[y[:, rows]], other[1][:, :, orders])[:, :, orders]
        changed = (first - moved).abs().amax(2)
        by_place = changed.sort(1).values.mean(0).clamp_min(torch.finfo(torch.float64).eps)
        return OneSeed(
            values=changed.mean().unsqueeze(0),
            errors=(first - F.one_hot(asked, 3)).square().sum(2).mean().unsqueeze(0),
            zero_errors=torch.tensor([2 / 3], dtype=x.dtype),
            curves={name: (range(1, 17), by_place)},
        )

    return over_seeds(run, one)


@claim(
    "The learner minds neither how examples, columns and classes are arranged nor the units of columns.",
    threshold=1e-4,
    direction="below",
    why="the canonical order is the same, so that only rounding in single precision could be left",
    axes=Axes(x="query, the least changed first", y="change of probability", log_y=True, rule=True),
)
def arrangement(run: Run) -> Samples:
    """Twenty-four examples of three classes in three columns."""
    return rearranged(run, partial(chances, table(), num_classes=3), "table transformer")


@arrangement.reference("logistic regression, which knows no order")
def arrangement_logistic(run: Run) -> Samples:
    """Rounding."""
    return rearranged(run, partial(chances, PLANE, num_classes=3), "logistic regression")


@arrangement.control("the network's forward pass by itself does mind")
def arrangement_bare(run: Run) -> Samples:
    """The same weights, without the canonical order and the ensemble."""
    return rearranged(run, bare, "the network by itself")
