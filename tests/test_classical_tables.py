"""`Standardized` prepares columns from the context alone."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.logistic import Logistic
from contexture.learners.classical.ols import OLS
from contexture.learners.standardized import Standardized
from contexture.protocols import Column, LearnerCard, Pairs, Prediction, Schema

NAN = math.nan


class Spy:
    """Keeps what it was shown; says the mean of y, variance 1 and two quantiles."""

    card = LearnerCard(name="spy", summary="A spy.", kind="classical", targets=frozenset({"regression"}))

    def predict(self, context, queries):
        self.context, self.queries = context, queries
        mean = context.y.mean(1, keepdim=True).expand(-1, queries.shape[1])
        quantiles = torch.stack([mean - 1, mean + 1], -1)
        return Prediction(mean=mean, variance=torch.ones_like(mean), levels=(0.2, 0.8), quantiles=quantiles)

    def prequential(self, episodes):
        raise NotImplementedError


def table(*rows, columns, y):
    x = torch.tensor(rows, dtype=torch.float64)[None]
    return Pairs(x=x, y=torch.tensor(y)[None], schema=Schema(features=columns))


def shown(context, queries):
    spy = Spy()
    said = Standardized(spy).predict(context, torch.tensor(queries, dtype=torch.float64)[None])
    return spy, said


def test_numbers_are_scored_and_gaps_said():
    context = table([1.0], [5.0], [NAN], columns=(Column(name="a"),), y=[1.0, 2.0, 3.0])
    spy, _ = shown(context, [[7.0], [NAN]])
    # mean 3, deviation 2; a third of the cells is missing
    assert spy.context.x[0].flatten().tolist() == pytest.approx([-1, -1 / 3, 1, -1 / 3, 0, 2 / 3])
    assert spy.queries[0].flatten().tolist() == pytest.approx([2, -1 / 3, 0, 2 / 3])


def test_categories_are_those_of_the_context():
    colour = Column(name="c", kind="categorical", categories=("red", "green", "blue"))
    context = table([0.0], [0.0], [2.0], columns=(colour,), y=[1.0, 2.0, 3.0])
    spy, _ = shown(context, [[2.0], [1.0], [NAN]])
    third = 1 / 3
    # red, green (never seen: always 0), blue, gap (never seen: always 0)
    assert spy.context.x[0, 0].tolist() == pytest.approx([third, 0, -third, 0])
    assert spy.queries[0].flatten().tolist() == pytest.approx(
        [-2 * third, 0, 2 * third, 0, -2 * third, 0, -third, 0, third, 0, -third, 0]
    )


def test_flat_columns_say_nothing():
    context = table([7.0, 1e9], [7.0, 1e9], columns=(Column(name="a"), Column(name="b")), y=[1.0, 2.0])
    spy, _ = shown(context, [[8.0, -1e9]])
    assert not spy.context.x.any()
    assert not spy.queries.any()


def test_targets_are_scored_and_the_prediction_is_brought_back():
    context = table([1.0], [2.0], columns=(Column(name="a"),), y=[10.0, 16.0])
    spy, said = shown(context, [[0.0]])
    assert spy.context.y.tolist() == [[-1, 1]]
    assert (said.mean.item(), said.variance.item()) == (13, 9)
    assert said.quantiles.flatten().tolist() == [10, 16]
    assert said.levels == (0.2, 0.8)


def test_an_empty_or_constant_context_leaves_a_prediction():
    context = table([1.0], [2.0], columns=(Column(name="a"),), y=[4.0, 4.0])
    queries = torch.tensor([[[3.0]]])
    assert Standardized(OLS()).predict(context, queries).mean.item() == 4
    assert Standardized(OLS()).predict(context.prefix(0), queries).mean.item() == 0
    none = Pairs(x=torch.zeros(1, 2, 0), y=torch.tensor([[1.0, 3.0]]), schema=Schema(features=()))
    assert Standardized(OLS()).predict(none, torch.zeros(1, 1, 0)).mean.item() == 2


def test_units_do_not_matter(generator):
    x = torch.randn(4, 12, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    schema = Schema.numeric(3)
    other = Pairs(x=x * torch.tensor([1e6, 1e-3, 7.0]) + torch.tensor([3.0, 4.0, 1e3]), y=50 * y - 20, schema=schema)
    for learner in (Standardized(BayesRidge()), Standardized(KNearestNeighbours())):
        said, moved = learner.prequential(Pairs(x=x, y=y, schema=schema)), learner.prequential(other)
        torch.testing.assert_close(moved.mean[:, 1:], 50 * said.mean[:, 1:] - 20, rtol=1e-8, atol=1e-7)


def test_the_card_is_the_learners_own():
    card = Standardized(Logistic()).card
    assert (card.name, card.tables, card.prequential) == ("logistic", True, "refit")
    assert card.targets == {"classification"}


def test_bad_input():
    context = table([1.0], [math.inf], columns=(Column(name="a"),), y=[1.0, 2.0])
    with pytest.raises(InputError, match="infinite"):
        Standardized(OLS()).predict(context, torch.zeros(1, 1, 1))
    with pytest.raises(InputError, match="has 1 features, but the queries have 2"):
        Standardized(OLS()).predict(context.prefix(1), torch.zeros(1, 1, 2))
    with pytest.raises(InputError, match="logistic does classification"):
        Standardized(Logistic()).predict(context.prefix(1), torch.zeros(1, 1, 1))
