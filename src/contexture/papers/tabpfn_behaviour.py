r"""What exactly has TabPFN learned to do? (McCarter 2025): the functions that a learner makes of tiny tables.

    table of n examples ─▶ learner (a black box) ─▶ p(class | x) at every x, in one or two dimensions

The learner is this repository's own, `contexture.load("tables")`: another network than the paper's, trained on another
prior, so that each sentence is asked of it anew. What other learners make of the same examples stands beside it.
Shapes: x [tables, examples, columns], y [tables, examples], queries [tables, queries, columns].
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from contexture.claims.copied_tables import columns_copied, examples_copied, red_copied
from contexture.claims.line_tables import alternating, beyond, jumps, mirrored, waves
from contexture.claims.plane_tables import beside_best, cells, honest
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.claims.tiny_tables import chances, table
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.logistic import Logistic
from contexture.learners.classical.naive_bayes import NaiveBayes
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.classical.random_forest import RandomForest
from contexture.learners.standardized import Standardized
from contexture.tasks.draws import normal

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


@claim(
    "Between two classes on a line its probability is not monotone: far beyond the examples it grows uncertain again.",
    threshold=0.9,
    direction="below",
    why="at 1 it is as certain sixteen times as far out as among the examples; a tenth less is more than rounding",
    kind="trained",
    axes=Axes(x="x; four examples of either class about -1 and 1", y="probability of the class on the right"),
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
    return jumps(run, table(), "table transformer")


@smooth.reference("a Gaussian process with a smooth kernel")
def smooth_process(run: Run) -> Samples:
    """No jumps."""
    return jumps(run, PROCESS, "Gaussian process")


@smooth.control("a random forest is all jumps")
def smooth_forest(run: Run) -> Samples:
    """Steps between examples."""
    return jumps(run, FOREST, "random forest")


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
    return beside_best(run, table(), "table transformer")


@brilliant.reference("the probabilities of one who knows the shape")
def brilliant_truth(run: Run) -> Samples:
    """Nothing is learned."""
    return beside_best(run, None, "the truth")


@brilliant.control("logistic regression, to which every shape is a half")
def brilliant_logistic(run: Run) -> Samples:
    """The best for one shape of four."""
    return beside_best(run, PLANE, "logistic regression")


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
