"""Intervals are held to their promise: simulate, and count how often they hold the truth."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.evaluation import intervals
from contexture.evaluation.intervals import Interval
from contexture.randomness import generator as derived

REPEATS = 200
# 95 % coverage over 200 repeats lies in this band but once in ten thousand times.
CAUTIOUS, BAND = (0.9, 1.0), (0.9, 0.99)


def coverage(make: Callable[[int], tuple[Interval, float]]) -> float:
    hits = [(found.low <= truth).item() and (truth <= found.high).item() for found, truth in map(make, range(REPEATS))]
    return sum(hits) / REPEATS


def normal(*shape: int, number: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=derived("coverage", number))


def test_bootstrap_over_episodes_covers() -> None:
    def one(number: int) -> tuple[Interval, float]:
        losses = normal(1, 60, number=number).square()
        return intervals.bootstrap(losses, generator=derived("b", number), num_resamples=300), 1.0

    assert BAND[0] <= coverage(one) <= BAND[1]


def seeds_that_differ(number: int) -> Tensor:
    return normal(12, 1, number=number) + 0.3 * normal(12, 30, number=10_000 + number)


def test_bootstrap_covers_where_seeds_differ_more_than_their_episodes() -> None:
    def one(number: int) -> tuple[Interval, float]:
        return intervals.bootstrap(seeds_that_differ(number), generator=derived("b", number), num_resamples=300), 0.0

    assert 0.87 <= coverage(one) <= 0.99


def test_forgetting_that_seeds_differ_does_not_cover() -> None:
    def one(number: int) -> tuple[Interval, float]:
        pooled = seeds_that_differ(number).reshape(1, -1)
        return intervals.bootstrap(pooled, generator=derived("b", number), num_resamples=300), 0.0

    assert coverage(one) < 0.5


def test_three_seeds_need_the_interval_over_seeds() -> None:
    def samples(number: int) -> Tensor:
        return normal(3, 1, number=number) + 0.1 * normal(3, 20, number=10_000 + number)

    def student(number: int) -> tuple[Interval, float]:
        return intervals.seed_interval(samples(number)), 0.0

    def percentiles(number: int) -> tuple[Interval, float]:
        return intervals.bootstrap(samples(number), generator=derived("b", number), num_resamples=300), 0.0

    assert BAND[0] <= coverage(student) <= BAND[1]
    assert coverage(percentiles) < 0.85


def repeated_splits(number: int) -> Tensor:
    """Squared errors of the training half's mean, on 10 random halvings of one sample of 40 numbers."""
    sample = normal(40, number=number)
    shuffle = derived("splits", number)
    losses = []
    for _ in range(10):
        order = torch.randperm(40, generator=shuffle)
        losses.append((sample[order[20:]] - sample[order[:20]].mean()).square().mean())
    return torch.stack(losses)


TRUE_ERROR = 1 + 1 / 20


def splits_interval(correct: Callable[..., Interval]) -> float:
    def one(number: int) -> tuple[Interval, float]:
        return correct(repeated_splits(number), num_train=20, num_test=20), TRUE_ERROR

    return coverage(one)


def test_corrected_t_covers_for_repeated_splits() -> None:
    assert CAUTIOUS[0] <= splits_interval(intervals.corrected_t) <= CAUTIOUS[1]


def test_forgetting_the_correction_does_not_cover() -> None:
    def uncorrected(splits: Tensor, *, num_train: int, num_test: int) -> Interval:
        del num_train, num_test
        return intervals.corrected_t(splits, num_train=10**9, num_test=1)

    assert splits_interval(uncorrected) < CAUTIOUS[0]


def test_corrected_t_by_hand() -> None:
    # mean 2, s = 1, (1/3 + 1/2) s^2 = 5/6, t_2 = 4.3027
    found = intervals.corrected_t(torch.tensor([1.0, 2.0, 3.0]), num_train=20, num_test=10)
    assert found.high.item() - 2 == pytest.approx(4.30265 * (5 / 6) ** 0.5, abs=1e-4)
    assert 2 - found.low.item() == pytest.approx(4.30265 * (5 / 6) ** 0.5, abs=1e-4)


def test_one_split_has_no_interval() -> None:
    found = intervals.corrected_t(torch.tensor([[1.0, 2.0]]), num_train=5, num_test=5)
    assert found.value.tolist() == [1.0, 2.0]
    assert found.low.isnan().all()
    assert found.high.isnan().all()


def test_pairing_sees_a_difference_that_the_spread_hides() -> None:
    hard = 10 * normal(3, 50, 2, number=1).square()
    better = hard - 0.1 + 0.05 * normal(3, 50, 2, number=2)
    difference = intervals.paired_difference(better, hard, generator=derived("p"))
    assert difference.excludes_zero.all()
    assert (difference.high < 0).all()
    first, second = (intervals.bootstrap(losses, generator=derived("p")) for losses in (better, hard))
    assert (first.high > second.low).all()


def test_paired_ratio_by_hand() -> None:
    losses = normal(2, 30, number=3).square() + 1
    found = intervals.paired_ratio(3 * losses, losses, generator=derived("r"))
    for end in (found.low, found.value, found.high):
        assert end.item() == pytest.approx(3, abs=1e-12)


def test_paired_ratio_covers() -> None:
    def one(number: int) -> tuple[Interval, float]:
        shared = normal(1, 80, number=number).square()
        first = 2 * shared + 0.5 * normal(1, 80, number=10_000 + number)
        return intervals.paired_ratio(first, shared, generator=derived("r", number), num_resamples=300), 2.0

    assert BAND[0] <= coverage(one) <= BAND[1]


def test_every_trailing_entry_has_an_interval_of_its_own() -> None:
    samples = normal(2, 40, 3, number=4) + torch.tensor([0.0, 10.0, -10.0])
    found = intervals.bootstrap(samples, generator=derived("t"))
    assert found.value.shape == found.low.shape == (3,)
    assert (found.low < found.value).all()
    assert (found.value < found.high).all()


def test_a_missing_entry_leaves_the_others_alone() -> None:
    samples = normal(2, 40, 3, number=4)
    whole = intervals.bootstrap(samples, generator=derived("t"))
    samples[0, 0, 1] = torch.nan
    found = intervals.bootstrap(samples, generator=derived("t"))
    assert found.low.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(found.low[[0, 2]], whole.low[[0, 2]])


def test_wilson_by_hand() -> None:
    low, high = intervals.wilson(3, 10)
    assert (low, high) == (pytest.approx(0.1078, abs=1e-4), pytest.approx(0.6032, abs=1e-4))
    assert intervals.wilson(10, 10)[1] == pytest.approx(1.0)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_wilson_covers(share: float) -> None:
    hits = 0
    for number in range(2000):
        drawn = torch.rand(40, generator=derived("wilson", number))
        low, high = intervals.wilson(int((drawn < share).sum()), 40)
        hits += low <= share <= high
    assert 0.92 <= hits / 2000 <= 0.98


@pytest.mark.parametrize(
    "call",
    [
        lambda: intervals.bootstrap(torch.zeros(3), generator=derived(0)),
        lambda: intervals.bootstrap(torch.zeros(0, 3), generator=derived(0)),
        lambda: intervals.paired_difference(torch.zeros(1, 2), torch.zeros(1, 3), generator=derived(0)),
        lambda: intervals.seed_interval(torch.zeros(1, 3)),
        lambda: intervals.corrected_t(torch.zeros(3), num_train=0, num_test=1),
        lambda: intervals.wilson(3, 2),
        lambda: intervals.student_t(0, 0.95),
    ],
)
def test_nothing_to_go_by_is_an_error(call: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        call()
