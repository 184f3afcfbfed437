"""Linear families: what they draw, their oracles against brute force, and the anchors of their learning curves."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.ols import OLS
from contexture.learners.oracles.mixture_posterior import MixturePosterior
from contexture.learners.oracles.model_average import ModelAverage
from contexture.learners.oracles.priors import (
    Components,
    DenseOrSignsPrior,
    DensePrior,
    Prior,
    SparsePrior,
    TwoCentresPrior,
    signs,
)
from contexture.protocols import Learner, Pairs, Schema
from contexture.randomness import generator
from contexture.tasks.dense_sign_mixture import DenseSignMixture
from contexture.tasks.finite_linear_regression import FiniteLinearRegression
from contexture.tasks.gaussian_mixture_regression import GaussianMixtureRegression
from contexture.tasks.linear_regression import LinearRegression
from contexture.tasks.linear_regression_mixture import LinearRegressionMixture
from contexture.tasks.orthogonal_query_regression import OrthogonalQueryRegression
from contexture.tasks.repeated_query_regression import RepeatedQueryRegression
from contexture.tasks.scaled_linear_regression import ScaledLinearRegression
from contexture.tasks.skewed_linear_regression import SkewedLinearRegression, skewed_eigenvalues
from contexture.tasks.sparse_linear_regression import SparseLinearRegression

FP64 = torch.float64


def curve(task: Any, learner: Learner, episodes: int, *address: int) -> Tensor:
    """Mean squared error at each position, over the number of features."""
    drawn = task.sample(episodes, generator=generator("anchor", *address))
    mean = learner.prequential(drawn).mean
    assert mean is not None
    return (mean - drawn.y).square().mean(0) / task.num_features


def test_bayes_ridge_has_the_known_curve() -> None:
    task = LinearRegression(num_points=16)
    known = [1.04, 0.92, 0.79, 0.68, 0.56, 0.47, 0.36, 0.28, 0.21, 0.16, 0.13, 0.11, 0.09, 0.08, 0.07, 0.07]
    measured = curve(task, task.oracle(), 20_000)
    assert measured.tolist() == pytest.approx(known, abs=0.03)
    assert float(measured.mean()) == pytest.approx(0.376, abs=0.01)
    assert float(measured[0]) == pytest.approx(1 + 0.25 / 8, abs=0.03)


def test_the_zero_predictor_and_averaging_miss_the_known_curve() -> None:
    task = LinearRegression(num_points=16)
    for name in ("mean", "averaging"):
        assert float(curve(task, task.baselines()[name], 2_000).mean()) > 0.6


@pytest.mark.parametrize(("num_tasks", "known"), [(1, 0.031), (4, 0.091), (16, 0.149), (64, 0.176), (256, 0.216)])
def test_the_posterior_over_known_tasks_has_the_known_error(num_tasks: int, known: float) -> None:
    pools = [FiniteLinearRegression(num_tasks=num_tasks, seed=seed) for seed in range(12)]
    errors = torch.stack([curve(pool, pool.oracle(), 384, num_tasks, pool.seed).mean() for pool in pools])
    assert abs(float(errors.mean()) - known) < 3 * float(errors.std())
    assert abs(float(errors.mean()) / known - 1) < 0.15


def test_least_squares_without_noise_has_the_known_curve() -> None:
    task = LinearRegression(num_features=6, num_points=10, noise=0.0)
    assert isinstance(task.oracle(), OLS)
    expected = [max(0.0, 1 - n / 6) for n in range(10)]
    assert curve(task, task.oracle(), 20_000).tolist() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    "task",
    [
        LinearRegression(),
        SkewedLinearRegression(),
        ScaledLinearRegression(),
        OrthogonalQueryRegression(),
        RepeatedQueryRegression(),
        SparseLinearRegression(),
        FiniteLinearRegression(),
        LinearRegressionMixture(),
        GaussianMixtureRegression(),
        DenseSignMixture(),
    ],
    ids=lambda task: task.card.name,
)
def test_targets_are_linear_in_the_inputs(task: Any) -> None:
    drawn = task.sample(5, generator=generator("linear", 1))
    assert drawn.x.dtype == drawn.y.dtype == FP64
    assert drawn.schema == Schema.numeric(task.num_features)
    assert drawn.x.shape == (5, task.num_points, task.num_features)
    torch.testing.assert_close(drawn.clean, torch.einsum("btd,bd->bt", drawn.x, drawn.latents["weights"]))


def test_the_covariance_is_skewed_and_its_basis_random() -> None:
    task = SkewedLinearRegression(num_features=3, num_points=20_000)
    x = task.sample(2, generator=generator("skewed")).x
    values, vectors = torch.linalg.eigh(x.mT @ x / task.num_points)
    expected = (skewed_eigenvalues(3) * torch.ones(2, 3)).flip(-1)
    torch.testing.assert_close(values, expected, rtol=0.05, atol=0.0)
    assert torch.allclose(skewed_eigenvalues(3) / skewed_eigenvalues(3)[0], torch.tensor([1, 1 / 4, 1 / 9], dtype=FP64))
    assert float((vectors[0, :, -1] @ vectors[1, :, -1]).abs()) < 0.99


def test_rotations_are_uniform() -> None:
    from contexture.tasks.draws import orthogonal

    drawn = orthogonal(4096, 3, generator=generator("rotations"))
    torch.testing.assert_close(drawn @ drawn.mT, torch.eye(3, dtype=FP64).expand(4096, -1, -1))
    assert float(drawn.mean(0).abs().max()) < 5 / math.sqrt(3 * 4096)


def test_the_last_point_is_orthogonal_and_as_long() -> None:
    task = OrthogonalQueryRegression(num_features=6, num_points=4)
    drawn = task.sample(4096, generator=generator("orthogonal"))
    assert float((drawn.x[:, :-1] @ drawn.x[:, -1:].mT).abs().max()) < 1e-10
    assert float(drawn.x[:, -1].square().sum(-1).mean()) == pytest.approx(6, rel=0.05)
    answer = task.oracle().prequential(drawn).mean
    assert answer is not None
    assert float(answer[:, -1].abs().max()) < 1e-10
    assert float(answer[:, -2].abs().max()) > 0.1


def test_too_many_points_leave_no_orthogonal_direction() -> None:
    with pytest.raises(InputError, match="9 points leave no direction orthogonal to the first 8 in 8 dimensions"):
        OrthogonalQueryRegression(num_points=9)


def test_the_last_point_repeats_an_earlier_one_with_fresh_noise() -> None:
    drawn = RepeatedQueryRegression(num_points=6).sample(400, generator=generator("repeated"))
    place = drawn.latents["repeated"]
    assert torch.equal(drawn.x[:, -1], drawn.x[torch.arange(400), place])
    assert place.unique().tolist() == [0, 1, 2, 3, 4]
    assert not torch.any(drawn.y[:, -1] == drawn.y[torch.arange(400), place])


def test_sparse_weights_have_as_many_non_zeros_everywhere() -> None:
    weights = SparseLinearRegression(num_features=5).sample(2000, generator=generator("sparse")).latents["weights"]
    assert (weights != 0).sum(1).eq(3).all()
    assert (weights != 0).double().mean(0).tolist() == pytest.approx([0.6] * 5, abs=0.06)


def test_scaled_inputs_are_scaled() -> None:
    x = ScaledLinearRegression(scale=1 / 3).sample(1000, generator=generator("scaled")).x
    assert float(x.square().mean()) == pytest.approx(1 / 9, rel=0.05)


def test_a_pool_is_one_draw_of_its_seed() -> None:
    task = FiniteLinearRegression(num_tasks=3)
    assert torch.equal(task.weights, FiniteLinearRegression(num_tasks=3).weights)
    assert not torch.equal(task.weights, FiniteLinearRegression(num_tasks=3, seed=1).weights)
    drawn = task.sample(50, generator=generator("pool"))
    assert torch.equal(drawn.latents["weights"], task.weights[drawn.latents["component"]])
    assert drawn.latents["component"].unique().tolist() == [0, 1, 2]


def test_settings_out_of_range_are_named() -> None:
    for build, message in (
        (lambda: LinearRegression(num_points=0), "num_points must be at least 1, not 0"),
        (lambda: LinearRegression(noise=-1.0), "noise must be at least 0, not -1"),
        (lambda: SparseLinearRegression(num_features=2), "3 non-zero weights do not fit into 2 features"),
        (lambda: FiniteLinearRegression(noise=0.0), "noise must be positive, not 0"),
        (lambda: DenseSignMixture(sign_share=1.0), "sign_share must lie between 0 and 1, not 1"),
    ):
        with pytest.raises(InputError, match=message):
            build()


@dataclass(frozen=True)
class SignsPrior:
    def components(self, num_features: int) -> tuple[Components, ...]:
        return (signs(num_features),)


def by_enumeration(prior: Prior, noise_variance: float, context: Pairs, query: Tensor) -> tuple[float, float, float]:
    """Mean and variance at the query, and the log evidence, from each component's joint Gaussian of all targets."""
    logs, means, variances = [], [], []
    x, y = torch.cat([context.x[0], query]), context.y[0]
    for group in prior.components(x.shape[1]):
        for centre, factor, log_weight in zip(group.centres, group.factors, group.log_weights, strict=True):
            mean = x @ centre
            covariance = x @ factor @ factor.T @ x.T + noise_variance * torch.eye(len(x), dtype=FP64)
            seen, cross = covariance[:-1, :-1], covariance[-1, :-1]
            joint = torch.distributions.MultivariateNormal(mean[:-1], seen)
            logs.append(log_weight + joint.log_prob(y))
            means.append(mean[-1] + cross @ torch.linalg.solve(seen, y - mean[:-1]))
            variances.append(covariance[-1, -1] - cross @ torch.linalg.solve(seen, cross))
    log, mean, variance = torch.stack(logs), torch.stack(means), torch.stack(variances)
    weights = log.softmax(0)
    overall = (weights * mean).sum()
    spread = (weights * (variance + mean.square())).sum() - overall.square()
    return float(overall), float(spread), float(log.logsumexp(0))


@pytest.mark.parametrize(
    "prior",
    [DensePrior(), TwoCentresPrior(centre=1.0), DenseOrSignsPrior(sign_share=0.3), SparsePrior(num_nonzero=2)],
    ids=lambda prior: type(prior).__name__,
)
def test_the_mixture_posterior_is_that_of_enumeration(prior: Any) -> None:
    drawn = LinearRegression(num_features=4, num_points=7).sample(1, generator=generator("enumerate"))
    learner = MixturePosterior(prior=prior, noise_variance=0.25)
    said, context = learner.predict(drawn.prefix(6), drawn.x[:, 6:]), drawn.prefix(6)
    assert said.mean is not None
    assert said.variance is not None
    mean, variance, evidence = by_enumeration(prior, 0.25, context, drawn.x[0, 6:])
    assert float(said.mean) == pytest.approx(mean, rel=1e-9)
    assert float(said.variance) == pytest.approx(variance, rel=1e-9)
    assert float(learner.log_density(context).sum()) == pytest.approx(evidence, rel=1e-9)


def draw_dense(count: int, source: torch.Generator) -> Tensor:
    return torch.randn(count, 2, generator=source, dtype=FP64)


def draw_two_centres(count: int, source: torch.Generator) -> Tensor:
    side = 2.0 * torch.randint(2, (count,), generator=source) - 1
    return draw_dense(count, source) + torch.stack([3 * side, 0 * side], -1)


def draw_sparse(count: int, source: torch.Generator) -> Tensor:
    kept = torch.randint(2, (count,), generator=source)
    return draw_dense(count, source) * torch.stack([kept, 1 - kept], -1)


def draw_dense_or_signs(count: int, source: torch.Generator) -> Tensor:
    choice = torch.rand(count, 1, generator=source) < 0.5
    return torch.where(choice, 2.0 * torch.randint(2, (count, 2), generator=source) - 1, draw_dense(count, source))


@pytest.mark.parametrize(
    ("task", "draw"),
    [
        (LinearRegression(num_features=2, num_points=4), draw_dense),
        (GaussianMixtureRegression(num_features=2, num_points=4), draw_two_centres),
        (SparseLinearRegression(num_features=2, num_points=4, num_nonzero=1), draw_sparse),
        (DenseSignMixture(num_features=2, num_points=4), draw_dense_or_signs),
    ],
    ids=lambda value: getattr(getattr(value, "card", None), "name", ""),
)
def test_oracles_are_the_posterior_mean_of_monte_carlo(task: Any, draw: Callable[..., Tensor]) -> None:
    """Weights drawn from the prior as the docstring words it, weighted by the likelihood of three examples."""
    episodes = task.sample(3, generator=generator("monte carlo"))
    said = task.oracle().predict(episodes.prefix(3), episodes.x[:, 3:]).mean
    weights = draw(1_000_000, generator("prior"))
    for index in range(3):
        error = episodes.y[index, :3] - weights @ episodes.x[index, :3].T
        share = (-error.square().sum(1) / (2 * task.noise**2)).softmax(0)
        values = weights @ episodes.x[index, 3]
        expected = float(share @ values)
        standard_error = float((share.square() @ (values - expected).square()).sqrt())
        assert float(said[index, 0]) == pytest.approx(expected, abs=5 * standard_error)
        assert standard_error < 0.05


def test_the_posterior_over_known_tasks_is_exponential_weights() -> None:
    task = LinearRegressionMixture(num_features=3, num_components=4, num_points=6)
    drawn = task.sample(5, generator=generator("weights"))
    said = task.oracle().predict(drawn.prefix(5), drawn.x[:, 5:]).mean
    error = drawn.y[:, :5, None] - drawn.x[:, :5] @ task.weights.T
    shares = (-error.square().sum(1) / (2 * 0.25)).softmax(-1)
    expected = torch.einsum("bm,md,bd->b", shares, task.weights, drawn.x[:, 5])
    assert said is not None
    torch.testing.assert_close(said[:, 0], expected)


def test_one_dense_component_is_bayesian_ridge_regression() -> None:
    drawn = LinearRegression().sample(6, generator=generator("one"))
    mixture, ridge = MixturePosterior(prior=DensePrior(), noise_variance=0.25), BayesRidge(noise_variance=0.25)
    got, expected = mixture.prequential(drawn), ridge.prequential(drawn)
    torch.testing.assert_close(got.mean, expected.mean, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(got.variance, expected.variance, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(mixture.log_density(drawn), ridge.log_density(drawn), rtol=1e-9, atol=1e-10)


def test_averaging_models_by_evidence_is_the_posterior_of_the_mixture() -> None:
    drawn = DenseSignMixture(num_features=4).sample(8, generator=generator("average"))
    parts = (BayesRidge(noise_variance=0.25), MixturePosterior(prior=SignsPrior(), noise_variance=0.25))
    average = ModelAverage(learners=parts, shares=(0.7, 0.3))
    whole = MixturePosterior(prior=DenseOrSignsPrior(sign_share=0.3), noise_variance=0.25)
    got, expected = average.prequential(drawn), whole.prequential(drawn)
    torch.testing.assert_close(got.mean, expected.mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(got.variance, expected.variance, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(average.log_density(drawn), whole.log_density(drawn), rtol=1e-8, atol=1e-9)
    at_end = average.predict(drawn.prefix(24), drawn.x[:, 24:]).mean
    assert got.mean is not None
    torch.testing.assert_close(at_end, got.mean[:, 24:], rtol=1e-8, atol=1e-9)


def test_a_prior_of_too_many_components_is_refused() -> None:
    drawn = LinearRegression(num_features=14, num_points=2).sample(1, generator=generator("many"))
    with pytest.raises(InputError, match="needs 16384 components at 14 features"):
        MixturePosterior(prior=DenseOrSignsPrior()).prequential(drawn)
    assert DenseSignMixture(num_features=14).oracle() is None
    assert SparseLinearRegression(noise=0.0).oracle() is None
