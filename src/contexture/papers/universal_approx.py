r"""Universal approximation by a single transformer layer (Gumaan 2025).

One layer of attention followed by a position-wise ReLU network, with weights set by hand: every token copies the whole
sequence, and units of its own interpolate what it has to say. The maps to approximate are sums of six random cosines of
the whole sequence, another sum at each position,

    F(x)_i = sum_m a_im cos(<w_im, x> + b_im),     x = (x_1, x_2, x_3), x_j in [0, 1]^2,

which are dense in the continuous maps; and sorting, fitted from samples. Without attention a token knows x_i alone, and
the best that it can say is the mean of F(x)_i given x_i.
Shapes: x [sequences, positions, features], F(x) [sequences, positions].
"""

from collections.abc import Callable

import torch
from torch import Tensor

from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.run import Run
from contexture.models.one_layer import CosineMap, fit, interpolate
from contexture.tasks.draws import normal

PAPER = Paper(
    key="universal-approx",
    title="Universal Approximation Theorem for a Single-Layer Transformer",
    authors="Esmail Gumaan",
    year=2025,
    arxiv="2507.10581",
    left_out={
        "case studies show what follows in practice": "they speak of large published models, whose data and scale are "
        "missing here",
    },
)

POSITIONS, FEATURES, TERMS = 3, 2, 6
FREQUENCY = 2.0
"""The standard deviation of every weight in w: a cosine turns about once along a sequence."""
INTERVALS = (4, 8, 16, 32, 64, 128)
SEQUENCES = 512
ALONE = "the network without attention, at the best that a token can say by itself, stays away"

Approximation = Callable[[CosineMap, int], Callable[[Tensor], Tensor]]


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Inputs from [0, 1]."""
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def draw_map(generator: torch.Generator) -> CosineMap:
    """A random map."""
    return CosineMap(
        directions=FREQUENCY * normal(POSITIONS, TERMS, POSITIONS * FEATURES, generator=generator),
        phases=2 * torch.pi * uniform(POSITIONS, TERMS, generator=generator),
        amplitudes=normal(POSITIONS, TERMS, generator=generator),
    )


def layer(target: CosineMap, intervals: int) -> Callable[[Tensor], Tensor]:
    """Attention and network."""
    return interpolate(target, num_features=FEATURES, intervals=intervals)


def alone(target: CosineMap, intervals: int) -> Callable[[Tensor], Tensor]:
    """The network by itself, for the mean of the map given a token's own input."""
    return interpolate(target.given_own(FEATURES), num_features=FEATURES, intervals=intervals, copies=False)


def cosines(target: CosineMap, intervals: int) -> Callable[[Tensor], Tensor]:
    """The map with every cosine interpolated between the same knots, without a transformer."""
    low = target.directions.clamp(max=0).sum(-1) + target.phases
    high = target.directions.clamp(min=0).sum(-1) + target.phases
    step = (high - low) / intervals

    def answer(x: Tensor) -> Tensor:
        angles = torch.einsum("pmi,bi->bpm", target.directions, x.flatten(1)) + target.phases
        left = low + step * ((angles - low) / step).floor().clamp(0, intervals - 1)
        part = (angles - left) / step
        return (target.amplitudes * ((1 - part) * left.cos() + part * (left + step).cos())).sum(-1)

    return answer


def straight(target: CosineMap, intervals: int) -> Callable[[Tensor], Tensor]:
    """The best that the layer says without its ReLU: a linear function of the sequence, fitted at each position."""
    del intervals  # A linear network does not profit from width.
    x = uniform(4096, POSITIONS, FEATURES, generator=torch.Generator().manual_seed(0))
    weights = torch.linalg.lstsq(_with_one(x), target(x)).solution
    return lambda asked: _with_one(asked) @ weights


def _with_one(x: Tensor) -> Tensor:
    return torch.nn.functional.pad(x.flatten(1), (0, 1), value=1.0)


def found(run: Run, seed: int, approximation: Approximation) -> tuple[Tensor, Tensor, Tensor]:
    """Of several maps: largest errors over the root mean square [widths, maps], and squared errors at the widest."""
    num_maps = run.setting("maps", smoke=4, cpu=16)
    generator = run.generator(seed, "maps")
    largest, errors, zero = [], [], []
    for _ in range(num_maps):
        target = draw_map(generator)
        x = uniform(SEQUENCES, POSITIONS, FEATURES, generator=generator)
        wanted = target(x)
        off = [approximation(target, intervals)(x) - wanted for intervals in INTERVALS]
        largest.append(torch.stack([part.abs().amax() for part in off]) / wanted.square().mean().sqrt())
        errors.append(off[-1].square().mean())
        zero.append(wanted.square().mean())
    return torch.stack(largest, 1), torch.stack(errors), torch.stack(zero)


WIDTHS = tuple(POSITIONS * TERMS * intervals + POSITIONS for intervals in INTERVALS)
BY_WIDTH = Axes(x="width of the feed-forward network", y="largest error, relative", log_x=True, log_y=True, rule=True)


def largest_error(run: Run, approximation: Approximation, name: str) -> Samples:
    """At the widest layer, over all sequences and positions; a learner without a name has no line in the figure."""

    def one(seed: int) -> OneSeed:
        errors, squared, zero = found(run, seed, approximation)
        return OneSeed(values=errors[-1], errors=squared, zero_errors=zero, curves={name: (WIDTHS, errors.mean(1))})

    return over_seeds(run, one)


@claim(
    "One layer of attention and a ReLU network approximates continuous maps from sequences to sequences everywhere.",
    threshold=0.01,
    direction="below",
    why="one hundredth of the map's size at the worst of 512 sequences; the bound sum |a| h^2 / 8 is about .002",
    axes=BY_WIDTH,
)
def approximation(run: Run) -> Samples:
    """Sixteen maps a seed at a width of 2,307."""
    return largest_error(run, layer, "one layer")


@approximation.reference("the cosines interpolated between the same knots, without a transformer")
def approximation_interpolated(run: Run) -> Samples:
    """What the layer computes, written down directly."""
    return largest_error(run, cosines, "")


@approximation.control(ALONE)
def approximation_alone(run: Run) -> Samples:
    """The same units without what attention brings."""
    return largest_error(run, alone, "without attention")


def pace(run: Run, approximation: Approximation, name: str) -> Samples:
    """The slope of the logarithm of the largest error over that of the width."""
    at = torch.tensor(WIDTHS[1:], dtype=torch.float64).log()
    at = at - at.mean()

    def one(seed: int) -> OneSeed:
        errors, squared, zero = found(run, seed, approximation)
        slopes = (at[:, None] * errors[1:].log()).sum(0) / at.square().sum()
        return OneSeed(values=slopes, errors=squared, zero_errors=zero, curves={name: (WIDTHS, errors.mean(1))})

    return over_seeds(run, one)


@claim(
    "Any precision can be reached by making the network wider: the error falls as a power of the width.",
    threshold=-1.5,
    direction="below",
    why="interpolation errs by the square of the interval, a slope of -2; an error that stays has a slope of 0",
    axes=Axes(x="width of the feed-forward network", y="largest error, relative", log_x=True, log_y=True),
)
def precision(run: Run) -> Samples:
    """Over widths from 147 to 2,307."""
    return pace(run, layer, "one layer")


@precision.reference("the cosines interpolated between the same knots, without a transformer")
def precision_interpolated(run: Run) -> Samples:
    """The same slope."""
    return pace(run, cosines, "")


@precision.control("without its ReLU the layer is as far away at any width")
def precision_linear(run: Run) -> Samples:
    """The best linear function of the whole sequence."""
    return pace(run, straight, "without ReLU")


def sorting(run: Run, *, copies: bool = True, exact: bool = False, name: str) -> Samples:
    """Squared errors of fitted layers on new sequences of three numbers, per those of the mean sorted sequence."""
    sequences = run.setting("sequences", smoke=512, cpu=4096)
    fitted = run.setting("sequences fitted", smoke=4096, cpu=16_384)
    widths = run.setting("units a position", smoke=(16, 64, 256), cpu=(16, 64, 256, 1024))
    # The means of three sorted numbers that are uniform on [0, 1].
    means = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "sorting")
        shown, x = (uniform(size, POSITIONS, 1, generator=generator) for size in (fitted, sequences))
        wanted = x.squeeze(-1).sort(1).values
        zero = (wanted - means).square().mean(1)
        errors = []
        for units in widths:
            drawn = run.generator(seed, "units", units)
            said = (
                _by_comparing(x.squeeze(-1))
                if exact
                else fit(shown, shown.squeeze(-1).sort(1).values, units=units, generator=drawn, copies=copies)(x)
            )
            errors.append((said - wanted).square().mean(1))
        share = torch.stack([error.mean() / zero.mean() for error in errors])
        return OneSeed(values=errors[-1], per=zero, errors=errors[-1], zero_errors=zero, curves={name: (widths, share)})

    return over_seeds(run, one)


def _by_comparing(x: Tensor) -> Tensor:
    """Three numbers sorted by their least, their largest, and what is left of their sum."""
    low, high = x.amin(1), x.amax(1)
    return torch.stack((low, x.sum(1) - low - high, high), 1)


@claim(
    "A map without a formula, and with kinks, is approximated as well: one layer fitted to samples sorts a sequence.",
    threshold=0.01,
    direction="below",
    why="one hundredth of the sorted numbers' variance; what a number by itself tells of its place leaves most of it",
    axes=Axes(x="units a position", y="squared error over the mean's", log_x=True, log_y=True, rule=True),
    leaves_out="longer sequences: the number of units that random kinks need grows fast with the length",
)
def sorts(run: Run) -> Samples:
    """Three numbers, with 1,024 units a position."""
    return sorting(run, name="one layer")


@sorts.reference("sorting by comparing the numbers")
def sorts_exactly(run: Run) -> Samples:
    """Rounding alone."""
    return sorting(run, exact=True, name="")


@sorts.control("the same network without attention does not sort")
def sorts_alone(run: Run) -> Samples:
    """The same units, fitted to the same samples, where a token sees itself alone."""
    return sorting(run, copies=False, name="without attention")
