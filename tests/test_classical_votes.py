"""Means, majorities, neighbours and naive Bayes: by hand."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.majority import Majority
from contexture.learners.classical.mean import Mean
from contexture.learners.classical.naive_bayes import NaiveBayes
from contexture.learners.classical.nearest_neighbour import NearestNeighbour
from contexture.learners.classical.weighted_knn import WeightedNearestNeighbours
from contexture.protocols import Column, Pairs, Schema


def line(*points):
    """Examples (x, y) on a line."""
    x, y = zip(*points, strict=True)
    return Pairs(x=torch.tensor(x).double()[None, :, None], y=torch.tensor(y).double()[None], schema=Schema.numeric(1))


def at(learner, context, x):
    return learner.predict(context, torch.tensor([[[x]]], dtype=torch.float64)).value[0, 0]


def test_mean_and_majority():
    context = line((0.0, 1.0), (1.0, 2.0), (5.0, 6.0))
    assert at(Mean(), context, 9.0) == 3
    votes = Pairs(x=context.x, y=torch.tensor([[2, 2, 0]]), schema=Schema.classes(1, 3))
    assert at(Majority(), votes, 0.0).tolist() == pytest.approx([2 / 6, 1 / 6, 3 / 6])
    assert at(Majority(pseudo_count=0.5), votes, 0.0).tolist() == pytest.approx([1.5 / 4.5, 0.5 / 4.5, 2.5 / 4.5])


def test_neighbours_by_hand():
    context = line((0.0, 1.0), (1.0, 2.0), (4.0, 8.0))
    assert at(NearestNeighbour(), context, 0.4) == 1
    assert at(NearestNeighbour(), context, 0.5) == 1.5
    assert at(KNearestNeighbours(k=2), context, 3.0) == 5
    assert at(KNearestNeighbours(k=9), context, 3.0) == pytest.approx(11 / 3)
    assert at(KNearestNeighbours(k=2), line((0.0, 1.0), (1.0, 2.0), (-1.0, 6.0)), 0.0) == pytest.approx((1 + 4) / 2)
    assert at(WeightedNearestNeighbours(k=2), context, 3.0) == pytest.approx((8 / 1 + 2 / 2) / 1.5)
    assert at(WeightedNearestNeighbours(k=2), context, 1.0) == 2
    assert at(KNearestNeighbours(), context.prefix(0), 3.0) == 0


def test_neighbours_of_classes():
    context = Pairs(x=torch.tensor([[[0.0], [1.0], [4.0]]]), y=torch.tensor([[1, 1, 0]]), schema=Schema.classes(1, 3))
    assert at(KNearestNeighbours(k=3), context, 0.0).tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert at(KNearestNeighbours(k=3), context.prefix(0), 0.0).tolist() == pytest.approx([1 / 3] * 3)


def test_naive_bayes_of_numbers_by_hand():
    x = torch.tensor([[[0.0], [2.0], [10.0]]], dtype=torch.float64)
    context = Pairs(x=x, y=torch.tensor([[0, 0, 1]]), schema=Schema.classes(1, 2))
    # all: mean 4, variance 56/3; class 0: mean (2 + 4) / 3, variance (2 + 56/3) / 3; class 1: (10 + 4) / 2, (56/3) / 2
    spreads, means, shares = (62 / 9, 28 / 3), (2.0, 7.0), (3, 2)
    scores = [s * math.exp(-0.5 * (5 - m) ** 2 / v) / v**0.5 for s, m, v in zip(shares, means, spreads, strict=True)]
    expected = [score / sum(scores) for score in scores]
    assert at(NaiveBayes(), context, 5.0).tolist() == pytest.approx(expected)


def test_naive_bayes_of_categories_by_hand():
    schema = Schema(
        features=(Column(name="c", kind="categorical", categories=("a", "b", "c")),), target=Schema.classes(1, 2).target
    )
    x = torch.tensor([[[0.0], [0.0], [1.0], [math.nan]]], dtype=torch.float64)
    context = Pairs(x=x, y=torch.tensor([[0, 0, 1, 1]]), schema=schema)
    # shares 3 : 3; value a: (2 + 1) / (2 + 3) and (0 + 1) / (1 + 3)
    assert at(NaiveBayes(), context, 0.0).tolist() == pytest.approx([0.6 / 0.85, 0.25 / 0.85])
    assert at(NaiveBayes(), context, math.nan).tolist() == pytest.approx([0.5, 0.5])
    assert at(NaiveBayes(), context, 7.0).tolist() == pytest.approx([0.5, 0.5])


def test_naive_bayes_keeps_its_digits_far_from_zero(generator):
    x = torch.randn(2, 20, 2, generator=generator, dtype=torch.float64)
    y = (x.sum(-1) > 0).long()
    near, far = (Pairs(x=x + shift, y=y, schema=Schema.classes(2, 2)) for shift in (0.0, 2.0**30))
    expected, said = NaiveBayes().prequential(near).probabilities, NaiveBayes().prequential(far).probabilities
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-5)


def test_bad_settings_and_codes():
    for make in (lambda: KNearestNeighbours(0), lambda: WeightedNearestNeighbours(0), lambda: Majority(0.0)):
        with pytest.raises(InputError):
            make()
    wrong = Pairs(x=torch.zeros(1, 2, 1), y=torch.tensor([[0, 2]]), schema=Schema.classes(1, 2))
    with pytest.raises(InputError, match="coded 0 to 1, but y holds 0 to 2"):
        Majority().prequential(wrong)
    infinite = Pairs(x=torch.full((1, 2, 1), math.inf), y=torch.tensor([[0, 1]]), schema=Schema.classes(1, 2))
    with pytest.raises(InputError, match="infinite"):
        NaiveBayes().prequential(infinite)
