"""Least squares and ridge over every prefix: by hand, against singular values, and the error that theory gives."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.classical.averaging import Averaging
from contexture.learners.classical.ols import OLS
from contexture.learners.classical.prefix_least_squares import growing_basis, prefix_least_squares
from contexture.learners.classical.recursive_least_squares import RecursiveLeastSquares
from contexture.learners.classical.ridge import Ridge
from contexture.learners.classical.rotated_triangle import prefix_ridge
from contexture.protocols import Pairs, Schema


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear(generator, *, batch, time, features, noise=0.0):
    x, w = draw(generator, batch, time, features), draw(generator, batch, features)
    y = torch.einsum("btd,bd->bt", x, w) + noise * draw(generator, batch, time)
    return Pairs(x=x, y=y, schema=Schema.numeric(features))


def by_singular_values(x, y):
    prefixes = [torch.linalg.pinv(x[:, :n], rtol=1e-12) @ y[:, :n, None] for n in range(1, x.shape[1] + 1)]
    return torch.cat([x.new_zeros(len(x), 1, x.shape[2]), torch.stack(prefixes, 1)[..., 0]], dim=1)


def relative(got, expected):
    return float(((got - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-300)).max())


def test_by_hand():
    x = tensor([2.0, 0.0], [2.0, 0.0], [1.0, 3.0], [0.0, 1.0])
    y = tensor(4.0, 8.0, 0.0, 0.0)
    # one row: (2, 0); twice with 4 and 8: their mean 6; then the third fits exactly: 3 + 3 w = 0; then the normal
    # equations 9 a + 3 b = 24, 3 a + 10 b = 0
    expected = tensor([0, 0], [2, 0], [3, 0], [3, -1], [80 / 27, -8 / 9])
    torch.testing.assert_close(prefix_least_squares(x[None], y[None])[0], expected, rtol=0, atol=1e-13)


def test_agrees_with_singular_values(generator):
    episodes = linear(generator, batch=64, time=15, features=6, noise=0.5)
    weights = prefix_least_squares(episodes.x, episodes.y)
    condition = torch.stack([torch.linalg.cond(episodes.x[:, :n]) for n in range(1, 16)], 1)
    assert condition.max() < 1e4
    assert relative(weights[:, 1:], by_singular_values(episodes.x, episodes.y)[:, 1:]) < 1e-10


@pytest.mark.parametrize("kind", ["repeated rows", "zero rows", "repeated column", "low rank", "few rows", "integers"])
def test_rank_deficient_prefixes_have_minimum_norm(generator, kind):
    x, y = draw(generator, 20, 12, 5), draw(generator, 20, 12)
    if kind == "repeated rows":
        x[:, 1], x[:10, 3], x[:, 8] = x[:, 0], x[:10, 2], x[:, 4]
    elif kind == "zero rows":
        x[:, 0], x[:7, 3:6] = 0, 0
    elif kind == "repeated column":
        x[..., 3] = x[..., 1]
    elif kind == "low rank":
        x = draw(generator, 20, 12, 2) @ draw(generator, 20, 2, 5)
    elif kind == "few rows":
        x, y = x[:, :3], y[:, :3]
    else:
        x = (2 * x).round()
    expected = by_singular_values(x, y)
    torch.testing.assert_close(prefix_least_squares(x, y), expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(OLS().weights(x, y), expected[:, -1], rtol=1e-8, atol=1e-10)


def test_regular_episodes_do_not_notice_deficient_ones_beside_them(generator):
    episodes = linear(generator, batch=4, time=10, features=4, noise=1.0)
    alone = prefix_least_squares(episodes.x, episodes.y)
    mixed = torch.cat([episodes.x, episodes.x * 0]), torch.cat([episodes.y, episodes.y])
    assert torch.equal(prefix_least_squares(*mixed)[:4], alone)


def test_one_factorisation_gives_what_gram_schmidt_gives(generator):
    x, y = draw(generator, 8, 9, 4), draw(generator, 8, 9)
    basis, coordinates = growing_basis(x)
    identity = torch.eye(4, dtype=torch.float64).expand(8, 4, 4)
    torch.testing.assert_close(basis @ basis.mT, identity, rtol=0, atol=1e-14)
    torch.testing.assert_close(coordinates @ basis, x, rtol=0, atol=1e-13)
    rotated = prefix_least_squares(x, y)[:, 5:]
    solved = torch.stack([torch.linalg.lstsq(coordinates[:, :n], y[:, :n, None]).solution for n in range(5, 10)], 1)
    torch.testing.assert_close(rotated, solved[..., 0] @ basis, rtol=1e-9, atol=1e-10)


def test_an_ill_conditioned_start_does_not_spoil_later_prefixes(generator):
    """At n = d the rows are nearly dependent; the recursion on (X'X)^-1 would carry that prefix's errors on."""
    x, y = draw(generator, 32, 20, 6), draw(generator, 32, 20)
    x[:, 5] = x[:, :5].sum(1) + 1e-5 * x[:, 5]
    weights, expected = prefix_least_squares(x, y), by_singular_values(x, y)
    assert torch.linalg.cond(x[:, :6]).min() > 1e5
    assert relative(weights[:, 10:], expected[:, 10:]) < 1e-12
    recursion = _sherman_morrison(x, y)
    assert relative(recursion[:, 10:], expected[:, 10:]) > 1e-8


def _sherman_morrison(x, y):
    inverse = torch.linalg.inv(x[:, :6].mT @ x[:, :6])
    weights = [(inverse @ x[:, :6].mT @ y[:, :6, None])[..., 0]]
    for t in range(6, x.shape[1]):
        gain = (inverse @ x[:, t, :, None])[..., 0]
        gain = gain / (1 + (x[:, t] * gain).sum(-1, keepdim=True))
        weights.append(weights[-1] + gain * (y[:, t] - (x[:, t] * weights[-1]).sum(-1))[:, None])
        inverse = inverse - gain[:, :, None] * (x[:, t, None] @ inverse)
    return torch.cat([x.new_zeros(len(x), 6, 6), torch.stack(weights, 1)], 1)


@pytest.mark.parametrize("nearness", [1.0, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9])
def test_whichever_way_is_taken_ends_at_the_same_weights(generator, nearness):
    """The nearer row d is to the span of the others, the less its running sums are worth: they give way in time."""
    x, y = draw(generator, 200, 21, 10), draw(generator, 200, 21)
    x[:, 9] = x[:, :9].sum(1) / 3 + nearness * x[:, 9]
    weights, expected = prefix_least_squares(x, y), by_singular_values(x, y)
    condition = torch.stack([torch.linalg.cond(x[:, :n]) for n in range(1, 22)], 1)
    good = condition < 1e4
    assert good[:, 15:].all()
    assert relative(weights[:, 1:][good], expected[:, 1:][good]) < 1e-10


@pytest.mark.parametrize("time", [5, 6, 20, 21, 60])
def test_any_number_of_later_rows(generator, time):
    """Few later rows go by running sums, many by rotations."""
    episodes = linear(generator, batch=16, time=time, features=5, noise=0.5)
    expected = by_singular_values(episodes.x, episodes.y)
    torch.testing.assert_close(prefix_least_squares(episodes.x, episodes.y), expected, rtol=1e-8, atol=1e-9)


def test_noiseless_error_is_one_minus_n_over_d(generator):
    """Minimum-norm least squares on isotropic x leaves the share of w outside the span of n rows."""
    episodes = linear(generator, batch=4000, time=12, features=10)
    mean = OLS().prequential(episodes).mean
    error = ((mean - episodes.y) ** 2).mean(0) / 10
    expected = torch.tensor([max(0.0, 1 - n / 10) for n in range(12)], dtype=torch.float64)
    torch.testing.assert_close(error, expected, rtol=0, atol=0.05)
    assert error[10:].max() < 1e-12


def test_ridge_by_hand():
    x, y = tensor([1.0, 0.0], [0.0, 2.0])[None], tensor(3.0, 5.0)[None]
    expected = tensor([0, 0], [3 / 1.5, 0], [3 / 1.5, 10 / 4.5])
    torch.testing.assert_close(Ridge(penalty=0.5).prefix_weights(x, y)[0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("penalty", [1e-10, 1e-3, 1.0, 1e6])
def test_ridge_solves_its_equations(generator, penalty):
    episodes = linear(generator, batch=16, time=9, features=5, noise=0.3)
    weights = Ridge(penalty).prefix_weights(episodes.x, episodes.y)
    for n in range(10):
        rows = torch.cat([episodes.x[:, :n], penalty**0.5 * torch.eye(5).double().expand(16, 5, 5)], 1)
        target = torch.cat([episodes.y[:, :n], torch.zeros(16, 5).double()], 1)
        expected = torch.linalg.lstsq(rows, target[..., None]).solution[..., 0]
        torch.testing.assert_close(weights[:, n], expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(Ridge(penalty).weights(episodes.x, episodes.y), weights[:, -1], rtol=1e-9, atol=1e-11)


def test_a_vanishing_penalty_gives_least_squares(generator):
    episodes = linear(generator, batch=8, time=9, features=5, noise=0.3)
    ridge = Ridge(1e-13).prefix_weights(episodes.x, episodes.y)
    torch.testing.assert_close(ridge, OLS().prefix_weights(episodes.x, episodes.y), rtol=1e-6, atol=1e-8)


def test_leverage_is_the_quadratic_form_of_the_inverse(generator):
    x, y = draw(generator, 3, 6, 4), draw(generator, 3, 6)
    leverage = prefix_ridge(x, y, penalty=0.7, queries=x)[1]
    for t in range(6):
        inverse = torch.linalg.inv(x[:, :t].mT @ x[:, :t] + 0.7 * torch.eye(4).double())
        expected = (x[:, t, None] @ inverse @ x[:, t, :, None])[:, 0, 0]
        torch.testing.assert_close(leverage[:, t], expected, rtol=1e-12, atol=0)


def test_forgetting_weighs_the_examples(generator):
    x, y = draw(generator, 4, 8, 3), draw(generator, 4, 8)
    weights = RecursiveLeastSquares(forgetting=0.8, penalty=0.5).prefix_weights(x, y)
    for n in range(9):
        share = 0.8 ** torch.arange(n - 1, -1, -1).double()
        system = x[:, :n].mT * share @ x[:, :n] + 0.5 * 0.8**n * torch.eye(3).double()
        expected = torch.linalg.solve(system, (x[:, :n] * (share * y[:, :n])[..., None]).sum(1))
        torch.testing.assert_close(weights[:, n], expected, rtol=1e-10, atol=1e-12)


def test_averaging_by_hand():
    x, y = tensor([1.0, 0.0], [1.0, 2.0])[None], tensor(2.0, 4.0)[None]
    expected = tensor([0, 0], [2, 0], [3, 4])
    assert torch.equal(Averaging().prefix_weights(x, y)[0], expected)


def test_shapes_without_examples_or_features():
    empty = Pairs(x=torch.zeros(2, 0, 3), y=torch.zeros(2, 0), schema=Schema.numeric(3))
    assert OLS().prequential(empty).mean.shape == (2, 0)
    none = Pairs(x=torch.zeros(2, 4, 0), y=torch.ones(2, 4), schema=Schema.numeric(0))
    for learner in (OLS(), Ridge()):
        assert torch.equal(learner.prequential(none).mean, torch.zeros(2, 4).double())
        assert torch.equal(learner.predict(none, torch.zeros(2, 1, 0)).mean, torch.zeros(2, 1).double())


def test_bad_input_is_one_sentence():
    good = Pairs(x=torch.zeros(1, 2, 1), y=torch.zeros(1, 2), schema=Schema.numeric(1))
    with pytest.raises(InputError, match=r"^ols takes finite numbers, but x\[0, 1, 0\] is missing or infinite"):
        OLS().predict(Pairs(x=tensor([[0.0], [math.nan]]), y=good.y, schema=good.schema), good.x)
    with pytest.raises(InputError, match=r"^ols does regression, but the target 'y' is a class"):
        OLS().prequential(Pairs(x=good.x, y=good.y.long(), schema=Schema.classes(1, 2)))
    with pytest.raises(InputError, match=r"^ols was shown 1 features, but the queries have 2"):
        OLS().predict(good, torch.zeros(1, 1, 2))
    with pytest.raises(InputError, match="needs a positive penalty, but it is 0"):
        Ridge(0.0)
    with pytest.raises(InputError, match="forgetting factor"):
        RecursiveLeastSquares(forgetting=1.5)
