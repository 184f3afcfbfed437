r"""Rethinking attention with Performers (Choromanski et al. 2020): softmax attention from random features.

    exp(q.k) = E f_w(q) f_w(k),    f_w(x) = exp(w.x - |x|^2 / 2),    w ~ N(0, I)

Directions w are the mixer's own, orthogonal in blocks, or drawn independently; the estimates, and their variances in
closed form, are those of `contexture.claims.random_features`.
Shapes: q, k [pairs or tokens, dim]; directions w [draws, features, dim].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from contexture.claims.outputs import apart
from contexture.claims.protocol import Axes, OneSeed, Paper, Samples, claim, over_seeds
from contexture.claims.random_features import (
    DIM,
    Directions,
    arc_cosine,
    independent,
    of_one_length,
    orthogonal,
    pairs,
    positive,
    positive_variance,
    trigonometric,
    trigonometric_variance,
)
from contexture.claims.run import Run
from contexture.ops.flops import count_flops
from contexture.ops.linear_attention import linear_attention
from contexture.ops.random_features import key_features, query_features
from contexture.ops.softmax_attention import softmax_attention
from contexture.ops.weighted_average import weighted_average
from contexture.tasks.draws import normal

PAPER = Paper(
    key="performer",
    title="Rethinking Attention with Performers",
    authors="Krzysztof Choromanski, Valerii Likhosherstov, David Dohan, Xingyou Song, Andreea Gane, Tamas Sarlos, "
    "Peter Hawkins, Jared Davis, Afroz Mohiuddin, Lukasz Kaiser, David Belanger, Lucy Colwell, Adrian Weller",
    year=2020,
    arxiv="2009.14794",
    uses=("performer", "softmax", "linear-attention"),
    left_out={
        "Performers compete with other sparse and dense attention on pixels, text and proteins": "needs ImageNet64, "
        "PG-19 and the proteins of TrEMBL, and models of many layers trained on accelerators",
    },
)


def bias(run: Run, directions: Directions, name: str, *, estimate: Callable[..., Tensor] = positive) -> Samples:
    """The squared bias relative to the kernel: the product of two independent means' errors, whose mean it is."""
    draws = run.setting("draws", smoke=4000, cpu=16_000)

    def one(seed: int) -> OneSeed:
        q, k = pairs(run, seed)
        found = estimate(directions(run, seed, 2 * draws, DIM), q, k)
        first, second = (part.mean(0) - 1 for part in torch.split(found, draws))
        counts = [2**n for n in range(4, int(math.log2(2 * draws)) + 1)]
        curve = torch.stack([(found[:count].mean(0) - 1).square().mean().sqrt() for count in counts])
        return OneSeed(
            values=first * second,
            errors=((first + second) / 2).square(),
            zero_errors=torch.ones_like(first),
            curves={name: ([DIM * count for count in counts], curve)},
        )

    return over_seeds(run, one)


@claim(
    "Positive features of random orthogonal directions estimate the softmax's kernel without bias.",
    threshold=5e-4,
    direction="below",
    why="a bias of 2 % squared; thousands of draws leave an error of 1 %, and wrong directions a bias of 5 %",
    axes=Axes(x="features averaged over", y="error of the mean, relative", log_x=True, log_y=True),
)
def unbiased(run: Run) -> Samples:
    """The mixer's directions."""
    return bias(run, orthogonal, "positive, orthogonal")


@unbiased.reference("sines and cosines of independent directions, the classical unbiased estimate")
def unbiased_trigonometric(run: Run) -> Samples:
    """Another estimate that is known to be unbiased."""
    return bias(run, independent, "sines and cosines", estimate=trigonometric)


@unbiased.control("directions that all have the same length, whose mean is another kernel")
def unbiased_of_one_length(run: Run) -> Samples:
    """The same angles without the spread of lengths."""
    return bias(run, of_one_length, "positive, one length")


def fewer_errors(run: Run, directions: Directions | None) -> Samples:
    """The variance of sixteen directions over that of as many independent ones in closed form.

    Without directions the bound that the paper proves for orthogonal ones stands in their place: less by
    2 (m - 1) / (m (d + 2)) (1 - exp(-|q + k|^2 / 2))^2. Short queries keep the tails of the estimates light.
    """

    def one(seed: int) -> OneSeed:
        draws = run.setting("draws", smoke=6000, cpu=20_000)
        q, k = pairs(run, seed, size=0.7)
        whole = positive_variance(q, k) / DIM
        if directions is None:
            gain = 2 * (DIM - 1) / (DIM * (DIM + 2)) * (1 - (-(q + k).square().sum(1) / 2).exp()).square()
            found = whole - gain
        else:
            found = (positive(directions(run, seed, draws, DIM), q, k) - 1).square().mean(0)
        return OneSeed(values=found, per=whole, errors=found, zero_errors=torch.ones_like(found))

    return over_seeds(run, one)


@claim(
    "Directions that are orthogonal to each other estimate the kernel with a lower variance than independent ones.",
    threshold=0.95,
    direction="below",
    why="the bound that the paper proves lies some 15 % below the variance of independent directions here",
)
def orthogonal_is_better(run: Run) -> Samples:
    """Sixteen directions in sixteen dimensions."""
    return fewer_errors(run, orthogonal)


@orthogonal_is_better.reference("the paper's bound on the variance of orthogonal directions")
def orthogonal_bound(run: Run) -> Samples:
    """The closed form."""
    return fewer_errors(run, None)


@orthogonal_is_better.control("as many independent directions have the variance of their closed form")
def orthogonal_control(run: Run) -> Samples:
    """The same draws of features without orthogonality."""
    return fewer_errors(run, independent)


FEATURES = (16, 32, 64, 128, 256)


def rate(run: Run, learner: str, name: str) -> Samples:
    """The exponent with which the variance changes with the number of features, by the two ends of FEATURES."""

    def one(seed: int) -> OneSeed:
        found = []
        for count in FEATURES:
            if learner == "closed form":
                found.append(positive_variance(*pairs(run, seed)) / count)
                continue
            shared = run.setting("draws for each number of features", smoke=500, cpu=2000)
            drawn = orthogonal(run, seed, shared, count)
            if learner == "copies":
                drawn = drawn[:, : FEATURES[0]].repeat(1, count // FEATURES[0], 1)
            found.append((positive(drawn, *pairs(run, seed)) - 1).square().mean(0))
        curve = torch.stack(found)
        exponents = (curve[-1] / curve[0]).log() / math.log(FEATURES[-1] / FEATURES[0])
        return OneSeed(
            values=exponents,
            errors=curve[-1],
            zero_errors=torch.ones_like(exponents),
            curves={name: (FEATURES, curve.mean(1))},
        )

    return over_seeds(run, one)


@claim(
    "The estimate converges as features are added: its variance falls as one over their number.",
    threshold=-0.9,
    direction="below",
    why="the exponent is -1 where features add information, and 0 where they do not",
    axes=Axes(x="random features", y="variance of the kernel, relative", log_x=True, log_y=True),
)
def converges(run: Run) -> Samples:
    """From 16 features to 256."""
    return rate(run, "orthogonal", "orthogonal directions")


@converges.reference("the variance of independent directions in closed form")
def converges_closed(run: Run) -> Samples:
    """Exactly one over the number."""
    return rate(run, "closed form", "independent, closed form")


@converges.control("the first sixteen directions again and again")
def converges_copies(run: Run) -> Samples:
    """As many features without new directions."""
    return rate(run, "copies", "sixteen directions repeated")


ANGLES = (0.1, 0.25, 0.5, 0.75, 0.9)


def small_weights(run: Run, learner: str, name: str) -> Samples:
    """The variance for queries and keys that point apart (q.k = -0.8 |q| |k|), over that of sines and cosines.

    The latter, in closed form, is what every learner is held against.
    """

    def turned(q: Tensor, k: Tensor, share: float) -> Tensor:
        """A key whose cosine with q is 1 - 2 * share."""
        cosine = 1 - 2 * share
        across = k - (k * q).sum(1, keepdim=True) * q / q.square().sum(1, keepdim=True)
        across = across / across.norm(dim=1, keepdim=True) * q.norm(dim=1, keepdim=True)
        key: Tensor = cosine * q + math.sqrt(1 - cosine**2) * across
        return key

    def one(seed: int) -> OneSeed:
        draws = run.setting("draws", smoke=4000, cpu=10_000)
        q, k = pairs(run, seed, size=1.2)
        drawn = independent(run, seed, draws, DIM)
        found, wanted = [], []
        for share in ANGLES:
            key = turned(q, k, share)
            wanted.append(trigonometric_variance(q, key) / DIM)
            if learner == "closed form":
                found.append(positive_variance(q, key) / DIM)
            else:
                estimate = positive if learner == "positive" else trigonometric
                found.append((estimate(drawn, q, key) - 1).square().mean(0))
        curve = torch.stack([part.mean() for part in found])
        return OneSeed(
            values=found[-1],
            per=wanted[-1],
            errors=found[-1],
            zero_errors=torch.ones_like(found[-1]),
            curves={name: ([1 - 2 * share for share in ANGLES], curve)},
        )

    return over_seeds(run, one)


@claim(
    "Where attention's weights are small, positive features have a low variance; sines and cosines have not.",
    threshold=0.5,
    direction="below",
    why="half the variance of sines and cosines for queries and keys at a cosine of -0.8, where they differ most",
    axes=Axes(x="cosine between query and key", y="variance of the kernel, relative", log_y=True),
)
def low_variance(run: Run) -> Samples:
    """Positive features of sixteen independent directions."""
    return small_weights(run, "positive", "positive features")


@low_variance.reference("the variance of positive features in closed form")
def low_variance_closed(run: Run) -> Samples:
    """Without the noise of drawing."""
    return small_weights(run, "closed form", "positive, closed form")


@low_variance.control(
    "sines and cosines of the same directions", incompetent="their variance exceeds the square itself"
)
def low_variance_trigonometric(run: Run) -> Samples:
    """Features of either sign."""
    return small_weights(run, "trigonometric", "sines and cosines")


TIME = 64


def tokens(run: Run, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, [sequences, time, 1, dim], with q.k / sqrt(dim) of standard deviation 1/2."""
    sequences = run.setting("sequences", smoke=4, cpu=64)
    q, k, v = normal(3, sequences, TIME, 1, DIM, generator=run.generator(seed, "tokens"))
    return q * 0.5**0.5, k * 0.5**0.5, v


def attention(run: Run, learner: str, name: str) -> Samples:
    """How far attention with estimated weights is from softmax attention, relative, with 4,096 features."""

    def one(seed: int) -> OneSeed:
        q, k, v = tokens(run, seed)
        wanted = softmax_attention(q, k, v)[0]
        if learner == "recurrence":
            weights = (q.squeeze(2) @ k.squeeze(2).mT * DIM**-0.5).exp().tril()
            return apart(((weights / weights.sum(-1, keepdim=True)) @ v.squeeze(2)).unsqueeze(2), wanted, name)
        drawn = orthogonal(run, seed, 2, 4096)
        first, second = drawn.unbind(0) if learner == "unpaired" else (drawn[0], drawn[0])
        bound = drawn.square().sum(-1).amax() / 2

        def exponents(x: Tensor, w: Tensor) -> Tensor:
            x = x * DIM**-0.25
            return x @ w.mT - x.square().sum(-1, keepdim=True) / 2

        read, written = query_features(exponents(q, first)), key_features(exponents(k, second), bound=bound)
        return apart(weighted_average(linear_attention, read, written, v)[0], wanted, name)

    return over_seeds(run, one)


@claim(
    "With random features in place of a table of weights, layers come to what regular softmax attention gives.",
    threshold=0.15,
    direction="below",
    why="|q + k|^2 is 4 in the features' units, so that 4,096 leave sqrt(e^4 / 4096) = 0.12 of a weight at most",
    axes=Axes(x="position", y="difference from softmax attention, relative", rule=True),
)
def attention_estimated(run: Run) -> Samples:
    """The mixer's features and sums."""
    return attention(run, "performer", "4,096 positive orthogonal features")


@attention_estimated.reference("softmax attention by its definition")
def attention_by_definition(run: Run) -> Samples:
    """The table of weights."""
    return attention(run, "recurrence", "table of weights")


@attention_estimated.control("features of queries and of keys from different directions: weights that do not know q.k")
def attention_unpaired(run: Run) -> Samples:
    """As many features, which estimate a constant."""
    return attention(run, "unpaired", "directions not shared")


LENGTHS = (128, 256, 512, 1024)


def work(run: Run, learner: str, name: str) -> Samples:
    """The exponent with which the operations of attention grow with the length, from 128 tokens to 1,024."""

    def one(seed: int) -> OneSeed:
        generator = run.generator(seed, "work")
        counts = []
        for length in LENGTHS:
            q, k, v = torch.randn(3, 1, length, 1, DIM, generator=generator)
            w = torch.randn(2 * DIM if learner == "performer" else DIM, DIM, generator=generator)

            def mixed(q: Tensor = q, k: Tensor = k, v: Tensor = v, w: Tensor = w) -> Tensor:
                if learner == "softmax":
                    return softmax_attention(q, k, v)[0]
                if learner == "linear":
                    return linear_attention(q, k, v)[0]
                return linear_attention((q @ w.mT).exp(), (k @ w.mT).exp(), v)[0]

            counts.append(count_flops(mixed))
        grown = torch.tensor(counts, dtype=torch.float64)
        exponent = (grown[-1:] / grown[0]).log() / math.log(LENGTHS[-1] / LENGTHS[0])
        return OneSeed(values=exponent, curves={name: (LENGTHS, grown)})

    return over_seeds(run, one)


@claim(
    "The work grows in proportion to the number of tokens.",
    threshold=1.1,
    direction="below",
    why="operations are counted: an exponent of 1 is linear and of 2 quadratic",
    axes=Axes(x="tokens", y="floating-point operations", log_x=True, log_y=True),
)
def linear_work(run: Run) -> Samples:
    """Features and their sums."""
    return work(run, "performer", "random features")


@linear_work.reference("linear attention without features")
def linear_work_linear(run: Run) -> Samples:
    """The sums alone."""
    return work(run, "linear", "linear attention")


@linear_work.control("softmax attention's table of weights", incompetent="operations are counted, nothing is predicted")
def linear_work_softmax(run: Run) -> Samples:
    """Every token against every other."""
    return work(run, "softmax", "softmax attention")


def beyond(run: Run, learner: str, name: str) -> Samples:
    """The relative squared error of the kernel of rectified products, for growing numbers of features."""
    counts = (64, 256, 1024, 4096)

    def one(seed: int) -> OneSeed:
        q, k = pairs(run, seed)
        wanted = arc_cosine(q, k)
        found = []
        for count in counts:
            if learner == "integral":
                found.append(wanted)
                continue
            w = orthogonal(run, seed, 1, count)[0]
            if learner == "relu":
                found.append(((q @ w.mT).relu() * (k @ w.mT).relu()).mean(1))
            else:
                found.append(positive(w.unsqueeze(0), q, k)[0] * (q * k).sum(1).exp())
        errors = torch.stack(found) - wanted
        curve = (errors.square().mean(1) / wanted.square().mean()).clamp_min(torch.finfo(wanted.dtype).eps)
        return OneSeed(
            values=errors[-1].square(),
            per=wanted.square(),
            errors=errors[-1].square(),
            zero_errors=wanted.square(),
            curves={name: (counts, curve)},
        )

    return over_seeds(run, one)


@claim(
    "The same directions with another function for the exponential estimate another kernel: the rectified one.",
    threshold=0.01,
    direction="below",
    why="one hundredth of the kernel's square; 4,096 features of relative variance about 4 leave a thousandth",
    axes=Axes(x="random features", y="squared error of the kernel, relative", log_x=True, log_y=True, rule=True),
)
def beyond_softmax(run: Run) -> Samples:
    """relu(w.q) relu(w.k) against its mean in closed form."""
    return beyond(run, "relu", "rectified features")


@beyond_softmax.reference("the kernel in closed form")
def beyond_integral(run: Run) -> Samples:
    """The integral over all directions."""
    return beyond(run, "integral", "closed form")


@beyond_softmax.control(
    "exponentials of the same directions", incompetent="it estimates a kernel eight times as large, and well"
)
def beyond_exponential(run: Run) -> Samples:
    """The softmax's features."""
    return beyond(run, "exponential", "exponential features")
