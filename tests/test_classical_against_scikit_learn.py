"""Learners that scikit-learn has too, against it."""

import pytest
import torch

from contexture.learners.classical.boosting import Boosting
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.kernels import KernelGrid
from contexture.learners.classical.knn import KNearestNeighbours
from contexture.learners.classical.lasso import Lasso
from contexture.learners.classical.logistic import Logistic
from contexture.learners.classical.random_forest import RandomForest
from contexture.learners.classical.weighted_knn import WeightedNearestNeighbours
from contexture.protocols import Column, Pairs, Schema


@pytest.fixture
def numbers(generator):
    x = torch.randn(3, 30, 4, generator=generator, dtype=torch.float64)
    y = x[..., 0] - 2 * x[..., 1] + 0.3 * torch.randn(3, 30, generator=generator, dtype=torch.float64)
    return Pairs(x=x, y=y, schema=Schema.numeric(4))


@pytest.fixture
def labels(generator):
    x = torch.randn(3, 40, 2, generator=generator, dtype=torch.float64)
    y = (x @ torch.randn(2, 3, generator=generator, dtype=torch.float64)).argmax(-1)
    return Pairs(x=x, y=y, schema=Schema.classes(2, 3))


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0])
def test_lasso(numbers, alpha):
    from sklearn.linear_model import Lasso as Theirs

    weights = Lasso(alpha).prefix_weights(numbers.x, numbers.y)
    for b in range(3):
        for n in (2, 3, 7, 30):
            theirs = Theirs(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=100_000)
            theirs.fit(numbers.x[b, :n].numpy(), numbers.y[b, :n].numpy())
            assert weights[b, n].tolist() == pytest.approx(theirs.coef_.tolist(), abs=1e-6)


def test_lasso_meets_the_conditions_of_its_optimum(generator):
    x = torch.randn(20, 12, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 12, generator=generator, dtype=torch.float64)
    weights = Lasso(0.05).prefix_weights(x, y)
    for n in range(1, 13):
        residual = y[:, :n] - (x[:, :n] @ weights[:, n, :, None])[..., 0]
        pull = (x[:, :n] * residual[..., None]).sum(1) / n
        used = weights[:, n] != 0
        torch.testing.assert_close(pull[used], 0.05 * weights[:, n][used].sign(), rtol=0, atol=1e-10)
        assert (pull.abs() <= 0.05 + 1e-10).all()
    assert (weights[:, 3] == 0).any()


def test_logistic(labels):
    from sklearn.linear_model import LogisticRegression

    rows = torch.nn.functional.pad(labels.x, (0, 1), value=1.0)
    said = Logistic(penalty=0.5).predict(labels, labels.x).probabilities
    for b in range(3):
        theirs = LogisticRegression(C=2.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
        theirs.fit(rows[b].numpy(), labels.y[b].numpy())
        torch.testing.assert_close(said[b], torch.from_numpy(theirs.predict_proba(rows[b].numpy())), rtol=0, atol=1e-5)


def test_logistic_on_hard_separable_data_converges():
    x = torch.tensor([[[-1000.0], [-999.0], [1e-3], [1000.0]]])
    context = Pairs(x=x, y=torch.tensor([[0, 0, 1, 1]]), schema=Schema.classes(1, 2))
    said = Logistic(penalty=1e-6).predict(context, x).probabilities
    assert said.isfinite().all()
    assert (said.argmax(-1) == context.y).all()


@pytest.mark.parametrize("k", [1, 4])
def test_neighbours(numbers, labels, generator, k):
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    for weights, learner in (("uniform", KNearestNeighbours(k)), ("distance", WeightedNearestNeighbours(k))):
        for pairs, kind in ((numbers, KNeighborsRegressor), (labels, KNeighborsClassifier)):
            queries = torch.randn(3, 5, pairs.x.shape[2], generator=generator, dtype=torch.float64)
            said = learner.predict(pairs, queries).value
            for b in range(3):
                theirs = kind(n_neighbors=k, weights=weights).fit(pairs.x[b].numpy(), pairs.y[b].numpy())
                ask = theirs.predict if kind is KNeighborsRegressor else theirs.predict_proba
                torch.testing.assert_close(said[b], torch.from_numpy(ask(queries[b].numpy())))


def test_gaussian_process_classification(labels):
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    two = Pairs(x=labels.x, y=(labels.y > 0).long(), schema=Schema.classes(2, 2))
    ours = GaussianProcess(grid=KernelGrid((1.0,), (1.0,)), signals=(2.0,)).predict(two, two.x).probabilities
    kernel = ConstantKernel(4.0, "fixed") * RBF(2**0.5, "fixed")
    for b in range(3):
        theirs = GaussianProcessClassifier(kernel, optimizer=None).fit(two.x[b].numpy(), two.y[b].numpy())
        chances = torch.from_numpy(theirs.predict_proba(two.x[b].numpy()))
        torch.testing.assert_close(ours[b], chances, rtol=0, atol=5e-3)  # two approximations of one integral


def test_refitted_learners_are_scikit_learn_s(numbers, labels):
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor

    said = RandomForest(num_trees=7, seed=3).predict(numbers.prefix(20), numbers.x[:, 20:]).mean
    theirs = RandomForestRegressor(n_estimators=7, random_state=3)
    theirs.fit(numbers.x[1, :20].numpy(), numbers.y[1, :20].numpy())
    assert said[1].tolist() == theirs.predict(numbers.x[1, 20:].numpy()).tolist()
    said = Boosting(num_trees=7).predict(labels.prefix(30), labels.x[:, 30:]).probabilities
    theirs = HistGradientBoostingClassifier(max_iter=7, min_samples_leaf=5, early_stopping=False, random_state=0)
    theirs.fit(labels.x[2, :30].numpy(), labels.y[2, :30].numpy())
    torch.testing.assert_close(said[2], torch.from_numpy(theirs.predict_proba(labels.x[2, 30:].numpy())))


def test_a_class_that_the_context_lacks_gets_no_probability(labels):
    alone = Pairs(x=labels.x[:, :6], y=torch.full((3, 6), 2), schema=labels.schema)
    some = Pairs(x=labels.x[:, :6], y=torch.tensor([0, 2, 0, 2, 0, 2]).expand(3, 6), schema=labels.schema)
    for learner in (RandomForest.example(), Boosting.example()):
        assert (learner.predict(alone, labels.x[:, 6:8]).probabilities == torch.tensor([0, 0, 1])).all()
        assert (learner.predict(some, labels.x[:, 6:8]).probabilities[..., 1] == 0).all()


def test_trees_use_categories_and_gaps():
    codes = torch.arange(40)[None, :] % 4
    gaps = torch.where(codes == 3, torch.nan, codes.double())
    x = torch.stack([codes.double().where(codes > 0, torch.nan), gaps], -1)
    y = torch.tensor([5.0, -3.0, 5.0, -3.0])[codes]
    schema = Schema(features=(Column(name="a", kind="categorical", categories=tuple("wxyz")), Column(name="b")))
    context = Pairs(x=x, y=y, schema=schema)
    for learner in (RandomForest(num_trees=20), Boosting(num_trees=60)):
        torch.testing.assert_close(learner.predict(context, x[:, :4]).mean, y[:, :4].double(), rtol=0, atol=0.3)
