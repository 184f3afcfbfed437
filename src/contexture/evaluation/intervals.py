"""Intervals for means of losses: bootstrap over episodes and seeds, repeated splits of one table, proportions.

Bootstrap (Efron 1979; two levels: Davison and Hinkley 1997, section 3.8): draw seeds with replacement, then episodes
with replacement within each drawn seed; the interval lies between percentiles of the resampled means.

Repeated train/test splits of one table are not independent, since they share rows. Nadeau and Bengio (2003, eq. 10)
put the correlation of two splits at test / (train + test), which makes the variance of the mean over k splits

    (1/k + test/train) s^2,      interval: mean +- t_{k-1} times its root.

Shapes: seeds, episodes = the two levels of sampling; every further axis ("...") has an interval of its own.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError

LEVEL = 0.95
NUM_RESAMPLES = 1000
_CHUNK = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate between its two ends, fp64 tensors of one shape; NaN where there was nothing to estimate from."""

    value: Float[Tensor, "*shape"]
    low: Float[Tensor, "*shape"]
    high: Float[Tensor, "*shape"]

    @property
    def excludes_zero(self) -> Tensor:
        """True where the whole interval lies on one side of zero."""
        return (self.low > 0) | (self.high < 0)


def _resample(
    flat: Float[Tensor, "rows columns"], *, seeds: int, generator: torch.Generator, num_resamples: int
) -> Float[Tensor, "resamples columns"]:
    """Means of `num_resamples` two-level resamples of rows ordered by seed, then episode."""
    rows = flat.shape[0]
    episodes = rows // seeds
    means = []
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        seed = torch.randint(seeds, (size, seeds, 1), generator=generator)
        episode = torch.randint(episodes, (size, seeds, episodes), generator=generator)
        chosen = (seed * episodes + episode).reshape(size, rows)
        weight = torch.zeros(size, rows, dtype=torch.float64).scatter_add_(
            1, chosen, torch.ones(size, rows, dtype=torch.float64)
        )
        means.append(weight @ flat / rows)
    return torch.cat(means)


def _check(samples: Tensor) -> None:
    if samples.dim() < 2 or samples.shape[0] == 0 or samples.shape[1] == 0:
        raise InputError(
            f"samples need the shape [seeds, episodes, ...], none of them empty, not {tuple(samples.shape)}"
        )


def _percentiles(draws: Tensor, level: float) -> tuple[Tensor, Tensor]:
    tail = (1 - level) / 2
    low, high = torch.quantile(draws, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    return low, high


def bootstrap(
    samples: Float[Tensor, "seeds episodes *shape"],
    *,
    generator: torch.Generator,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The mean over seeds and episodes, with a percentile interval from the two-level bootstrap.

    Where seeds only number streams of episodes the interval is cautious (with three seeds about 1.3 times as wide as
    needed); where they are trained models that differ far more than their episodes do, fewer than ten seeds make it
    too narrow: use `seed_interval` there.
    """
    _check(samples)
    shape = samples.shape[2:]
    flat = samples.double().reshape(samples.shape[0] * samples.shape[1], -1)
    draws = _resample(flat, seeds=samples.shape[0], generator=generator, num_resamples=num_resamples)
    low, high = _percentiles(draws, level)
    return Interval(value=flat.mean(0).reshape(shape), low=low.reshape(shape), high=high.reshape(shape))


def paired_difference(
    first: Float[Tensor, "seeds episodes *shape"],
    second: Float[Tensor, "seeds episodes *shape"],
    *,
    generator: torch.Generator,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The mean of first - second over the same episodes, with a two-level bootstrap interval."""
    _check_pair(first, second)
    return bootstrap(first - second, generator=generator, level=level, num_resamples=num_resamples)


def paired_ratio(
    first: Float[Tensor, "seeds episodes *shape"],
    second: Float[Tensor, "seeds episodes *shape"],
    *,
    generator: torch.Generator,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The ratio of means, mean(first) / mean(second), each resample taking the same episodes for both."""
    _check_pair(first, second)
    _check(first)
    shape = first.shape[2:]
    rows = first.shape[0] * first.shape[1]
    both = torch.cat([first.double().reshape(rows, -1), second.double().reshape(rows, -1)], dim=1)
    draws = _resample(both, seeds=first.shape[0], generator=generator, num_resamples=num_resamples)
    top, bottom = draws.chunk(2, dim=1)
    low, high = _percentiles(top / bottom, level)
    value, reference = both.mean(0).chunk(2)
    return Interval(value=(value / reference).reshape(shape), low=low.reshape(shape), high=high.reshape(shape))


def _check_pair(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise InputError(
            f"a paired interval needs the same episodes on both sides, "
            f"but the shapes are {tuple(first.shape)} and {tuple(second.shape)}"
        )


def seed_interval(samples: Float[Tensor, "seeds episodes *shape"], *, level: float = LEVEL) -> Interval:
    """The mean, with Student's t over the seeds' own means: right for few seeds however much they differ."""
    _check(samples)
    means = samples.double().mean(1)
    num_seeds = means.shape[0]
    if num_seeds < 2:
        raise InputError("an interval over seeds needs at least two seeds")
    value = means.mean(0)
    reach = student_t(num_seeds - 1, level) * means.std(0) / math.sqrt(num_seeds)
    return Interval(value=value, low=value - reach, high=value + reach)


def corrected_t(
    splits: Float[Tensor, "splits *shape"], *, num_train: int, num_test: int, level: float = LEVEL
) -> Interval:
    """The mean over repeated random splits of one table, with the interval of Nadeau and Bengio.

    splits: one score (or one paired difference) per split; num_train, num_test: the sizes of the two parts. With a
    single split there is no spread to go by, and the ends are NaN.

    >>> import torch
    >>> found = corrected_t(torch.tensor([1.0, 2.0, 3.0]), num_train=90, num_test=10)
    >>> round(found.value.item(), 3), round(found.high.item(), 3)
    (2.0, 4.868)
    """
    if splits.dim() < 1 or splits.shape[0] == 0 or num_train < 1 or num_test < 1:
        raise InputError(
            f"the corrected interval needs splits of at least one training and one test row, "
            f"not {tuple(splits.shape)} splits of {num_train} and {num_test}"
        )
    num_splits = splits.shape[0]
    value = splits.double().mean(0)
    if num_splits == 1:
        nothing = torch.full_like(value, torch.nan)
        return Interval(value=value, low=nothing, high=nothing)
    variance = (1 / num_splits + num_test / num_train) * splits.double().var(0)
    reach = student_t(num_splits - 1, level) * variance.sqrt()
    return Interval(value=value, low=value - reach, high=value + reach)


def wilson(successes: float, trials: int, *, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927): never empty, never outside 0 to 1.

    >>> tuple(round(end, 3) for end in wilson(0, 10))
    (0.0, 0.278)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(f"a proportion needs 0 <= successes <= trials with trials > 0, not {successes} of {trials}")
    z = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)).item()
    share = successes / trials
    denominator = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / denominator
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / denominator
    return max(0.0, centre - reach), min(1.0, centre + reach)


def student_t(freedom: int, level: float) -> float:
    """The t such that a Student variable with `freedom` degrees lies within +-t with probability `level`.

    >>> round(student_t(2, 0.95), 4), round(student_t(29, 0.95), 4)
    (4.3027, 2.0452)
    """
    if freedom < 1 or not 0 < level < 1:
        raise InputError(f"Student's t needs at least one degree of freedom and 0 < level < 1, not {freedom}, {level}")
    low, high = 0.0, 1.0
    while _t_within(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _t_within(t: float, freedom: int) -> float:
    """P(|T| < t): the finite trigonometric sums for whole degrees (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(freedom))
    cosine_squared = math.cos(theta) ** 2
    term = total = 1.0 if freedom % 2 == 0 else math.cos(theta)
    if freedom == 1:
        return 2 * theta / math.pi
    start = 2 if freedom % 2 == 0 else 3
    for k in range(start, freedom - 1, 2):
        term *= (k - 1) / k * cosine_squared
        total += term
    if freedom % 2 == 0:
        return math.sin(theta) * total
    return 2 / math.pi * (theta + math.sin(theta) * total)
