"""Bayesian regression with a known prior: against the normal distribution itself, and the known rows of errors."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from contexture.errors import InputError
from contexture.learners.classical.bayes_ridge import BayesRidge
from contexture.learners.classical.discrete_posterior import DiscretePosterior
from contexture.learners.classical.ridge import Ridge
from contexture.protocols import Pairs, Schema


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def noisy(generator, w, *, time=16, noise=0.5):
    x = draw(generator, len(w), time, w.shape[1])
    y = torch.einsum("btd,bd->bt", x, w) + noise * draw(generator, len(w), time)
    return Pairs(x=x, y=y, schema=Schema.numeric(w.shape[1]))


def test_bayes_ridge_has_its_known_error_at_every_position(generator):
    """d 8, noise .5: mean squared error over d, noise included, after 0 .. 15 examples."""
    episodes = noisy(generator, draw(generator, 12_000, 8))
    error = ((BayesRidge(noise_variance=0.25).prequential(episodes).mean - episodes.y) ** 2).mean(0) / 8
    known = [1.04, 0.92, 0.79, 0.68, 0.56, 0.47, 0.36, 0.28, 0.21, 0.16, 0.13, 0.11, 0.09, 0.08, 0.07, 0.07]
    assert error.tolist() == pytest.approx(known, rel=0.06, abs=0.008)
    assert float(error.mean()) == pytest.approx(0.376, rel=0.02)


@pytest.mark.parametrize(("tasks", "known"), [(1, 0.031), (4, 0.091), (16, 0.149), (64, 0.176), (256, 0.216)])
def test_discrete_posterior_has_its_known_error(generator, tasks, known):
    """The same setting with w from a finite set of known tasks; the mean over positions and over draws of the set."""
    errors = []
    for _ in range(16):
        pool = draw(generator, tasks, 8)
        episodes = noisy(generator, pool[torch.randint(tasks, (256,), generator=generator)])
        said = DiscretePosterior(pool, noise_variance=0.25).prequential(episodes)
        errors.append(((said.mean - episodes.y) ** 2).mean() / 8)
    assert float(torch.stack(errors).mean()) == pytest.approx(known, rel=0.12)


def test_bayes_ridge_is_conditioning_a_normal_distribution(generator):
    covariance = torch.tensor([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    learner = BayesRidge(prior_variance=covariance, noise_variance=0.3, prior_mean=mean)
    episodes = noisy(generator, draw(generator, 5, 3), time=7)
    x, y = episodes.x, episodes.y
    joint = x @ covariance @ x.mT + 0.3 * torch.eye(7).double()
    said, density = learner.prequential(episodes), learner.log_density(episodes)
    for t in range(7):
        cross, known = joint[:, t, :t], joint[:, :t, :t]
        solved = torch.linalg.solve(known, torch.stack([y[:, :t] - x[:, :t] @ mean, cross], -1))
        expected = x[:, t] @ mean + (cross * solved[..., 0]).sum(-1)
        torch.testing.assert_close(said.mean[:, t], expected, rtol=1e-10, atol=1e-10)
        expected = joint[:, t, t] - (cross * solved[..., 1]).sum(-1)
        torch.testing.assert_close(said.variance[:, t], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(density.sum(1), MultivariateNormal(x @ mean, joint).log_prob(y), rtol=1e-10, atol=1e-10)


def test_bayes_ridge_mean_is_ridge_at_the_ratio_of_variances(generator):
    episodes = noisy(generator, draw(generator, 6, 4), time=9)
    bayes = BayesRidge(prior_variance=2.0, noise_variance=0.5).prequential(episodes)
    torch.testing.assert_close(bayes.mean, Ridge(penalty=0.25).prequential(episodes).mean, rtol=1e-11, atol=1e-12)


def test_a_weight_without_prior_variance_stays_at_its_mean(generator):
    learner = BayesRidge(prior_variance=torch.tensor([1.0, 0.0]), prior_mean=torch.tensor([0.0, 7.0]))
    episodes = noisy(generator, draw(generator, 3, 2))
    assert (learner.prefix_weights(episodes.x, episodes.y)[..., 1] == 7).all()


def test_half_of_the_outcomes_fall_in_the_central_half(generator):
    episodes = noisy(generator, draw(generator, 3000, 8))
    said = BayesRidge(noise_variance=0.25).prequential(episodes)
    low, high = said.interval(0.5)
    inside = ((low < episodes.y) & (episodes.y < high)).double().mean(0)
    assert inside.tolist() == pytest.approx([0.5] * 16, abs=0.035)


def test_discrete_posterior_by_enumeration(generator):
    learner = DiscretePosterior.example()
    episodes = noisy(generator, learner.tasks.double()[[0, 3]], time=6)
    said, density = learner.prequential(episodes), learner.log_density(episodes)
    fits = torch.einsum("btd,md->btm", episodes.x, learner.tasks.double())
    chances = learner.prior.double().expand(2, 4)
    for t in range(6):
        likelihood = torch.exp(-((episodes.y[:, t, None] - fits[:, t]) ** 2)) / torch.pi**0.5  # noise variance 1/2
        torch.testing.assert_close(said.mean[:, t], (chances * fits[:, t]).sum(-1))
        spread = (chances * fits[:, t] ** 2).sum(-1) - (chances * fits[:, t]).sum(-1) ** 2
        torch.testing.assert_close(said.variance[:, t], 0.5 + spread)
        torch.testing.assert_close(density[:, t], (chances * likelihood).sum(-1).log())
        chances = chances * likelihood / (chances * likelihood).sum(-1, keepdim=True)


def test_bad_settings(generator):
    episodes = noisy(generator, draw(generator, 2, 3))
    for make in (
        lambda: BayesRidge(noise_variance=0.0),
        lambda: BayesRidge(prior_variance=torch.ones(2)).prequential(episodes),
        lambda: BayesRidge(prior_mean=torch.ones(4)).prequential(episodes),
        lambda: DiscretePosterior(torch.ones(3)),
        lambda: DiscretePosterior(torch.ones(2, 3), prior=torch.tensor([0.5, 0.6])),
        lambda: DiscretePosterior(torch.ones(2, 3), noise_variance=-1.0),
        lambda: DiscretePosterior(torch.ones(2, 5)).prequential(episodes),
    ):
        with pytest.raises(InputError):
            make()
