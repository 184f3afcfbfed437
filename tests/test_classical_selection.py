"""Ridge, kernel ridge and Gaussian processes that choose their settings: against doing it the long way."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from contexture.errors import InputError
from contexture.learners.classical.evidence_ridge import EvidenceRidge
from contexture.learners.classical.gaussian_process import GaussianProcess
from contexture.learners.classical.kernel_ridge import KernelRidge
from contexture.learners.classical.kernels import KernelGrid
from contexture.learners.classical.leave_one_out_ridge import LeaveOneOutRidge
from contexture.learners.classical.ols import OLS
from contexture.learners.classical.prefix_gaussian import PrefixGaussian, first_best
from contexture.learners.classical.ridge import Ridge
from contexture.protocols import Pairs, Schema

GRID = (100.0, 10.0, 1.0, 0.1)


def noisy(generator, *, batch=12, time=10, features=3, noise=0.7):
    x = torch.randn(batch, time, features, generator=generator, dtype=torch.float64)
    w = torch.randn(batch, features, generator=generator, dtype=torch.float64)
    y = torch.einsum("btd,bd->bt", x, w) + noise * torch.randn(batch, time, generator=generator, dtype=torch.float64)
    return Pairs(x=x, y=y, schema=Schema.numeric(features))


def test_evidence_is_the_density_of_the_context_with_the_scale_integrated_out(generator):
    """A normal with an inverse-gamma scale is Student's t; here the integral is taken numerically."""
    y = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    roots = torch.randn(2, 1, 5, 5, generator=generator, dtype=torch.float64)
    covariance = roots @ roots.mT + torch.eye(5).double()
    evidence = PrefixGaussian.of(covariance, y).log_evidence[:, 0]
    scales = torch.logspace(-5, 9, 100_001, dtype=torch.float64)
    prior = scales ** (-0.005 - 1) * torch.exp(-0.005 / scales)
    for n in (1, 3, 5):
        density = torch.stack([_density(y[0, :n], k[0, :n, :n], scales) for k in covariance])
        integral = torch.trapezoid(density * prior, scales).log()
        torch.testing.assert_close(evidence[1, n] - evidence[0, n], integral[1] - integral[0], rtol=1e-5, atol=1e-6)


def _density(y, covariance, scales):
    quadratic = y @ torch.linalg.solve(covariance, y)
    return torch.exp(-0.5 * (quadratic / scales + torch.logdet(covariance))) * scales ** (-len(y) / 2)


def test_left_out_errors_are_those_of_leaving_out(generator):
    episodes = noisy(generator, batch=4, time=7)
    products = torch.stack([episodes.x @ episodes.x.mT / penalty for penalty in GRID])
    errors = PrefixGaussian.of(products + torch.eye(7).double(), episodes.y).left_out_error
    for g, penalty in enumerate(GRID):
        for n in range(1, 8):
            total = torch.zeros(4, dtype=torch.float64)
            for i in range(n):
                rest = [s for s in range(n) if s != i]
                weights = Ridge(penalty).weights(episodes.x[:, rest], episodes.y[:, rest])
                total += (episodes.y[:, i] - (episodes.x[:, i] * weights).sum(-1)) ** 2
            torch.testing.assert_close(errors[g, :, n], total, rtol=1e-9, atol=1e-12)


def test_the_chosen_ridge_is_the_ridge_of_the_best_penalty(generator):
    episodes = noisy(generator)
    queries = torch.randn(12, 4, 3, generator=generator, dtype=torch.float64)
    choices = torch.stack([Ridge(penalty).predict(episodes, queries).mean for penalty in GRID])
    products = torch.stack([episodes.x @ episodes.x.mT / penalty for penalty in GRID])
    gaussian = PrefixGaussian.of(products + torch.eye(10).double(), episodes.y)
    for learner, scores in (
        (EvidenceRidge(GRID), gaussian.log_evidence[..., -1]),
        (LeaveOneOutRidge(GRID), -gaussian.left_out_error[..., -1]),
    ):
        best = first_best(scores)
        assert len(set(best.tolist())) > 1
        expected = choices[best, torch.arange(12)]
        torch.testing.assert_close(learner.predict(episodes, queries).mean, expected, rtol=1e-9, atol=1e-10)


def test_evidence_beats_every_fixed_penalty_where_noise_varies(generator):
    parts = [noisy(generator, batch=300, time=13, features=8, noise=noise) for noise in (0.05, 3.0)]

    def error(learner):
        """The geometric mean of the errors at little and at much noise."""
        errors = [((learner.prequential(part).mean - part.y)[:, 8:] ** 2).mean() for part in parts]
        return float((errors[0] * errors[1]).sqrt())

    fixed = min(error(Ridge(penalty)) for penalty in (0.01, 0.1, 1.0, 3.0, 10.0, 30.0))
    assert error(EvidenceRidge()) < 0.95 * fixed
    assert error(LeaveOneOutRidge()) < 1.3 * fixed  # its score is a noisy one near n = d
    assert error(OLS()) > 1.5 * error(EvidenceRidge())


def test_evidence_ridge_knows_its_error(generator):
    episodes = noisy(generator, batch=800, time=20, features=4)
    low, high = EvidenceRidge().prequential(episodes).interval(0.8)
    inside = ((low < episodes.y) & (episodes.y < high))[:, 10:].double().mean()
    assert float(inside) == pytest.approx(0.8, abs=0.03)


def test_huge_columns_leave_a_prediction(generator):
    episodes = noisy(generator)
    huge = Pairs(x=1e9 * episodes.x, y=episodes.y, schema=episodes.schema)
    for learner in (EvidenceRidge(), LeaveOneOutRidge()):
        assert learner.prequential(huge).mean.isfinite().all()


def test_gaussian_process_is_conditioning_a_normal_distribution(generator):
    episodes = noisy(generator, batch=3, time=6, features=2)
    grid = KernelGrid((0.8,), (0.2,))
    kernel = grid.kernel(episodes.x, episodes.x)[0]
    apart = (episodes.x[:, 4] - episodes.x[:, 1]).square().sum(-1)
    torch.testing.assert_close(kernel[:, 4, 1], torch.exp(-apart / (2 * 2 * 0.8**2)))
    said = GaussianProcess(grid=grid).prequential(episodes)
    ridge = KernelRidge(grid).prequential(episodes).mean
    for t in range(6):
        joint = kernel[:, : t + 1, : t + 1] + 0.2 * torch.eye(t + 1).double()
        solved = torch.linalg.solve(joint[:, :t, :t], torch.stack([episodes.y[:, :t], joint[:, t, :t]], -1))
        mean = (joint[:, t, :t] * solved[..., 0]).sum(-1)
        squares = (episodes.y[:, :t] * solved[..., 0]).sum(-1)
        scale = (1 + squares) / (t + 1) if t < 3 else (0.01 + squares) / (t - 2)
        torch.testing.assert_close(said.mean[:, t], mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ridge[:, t], mean, rtol=1e-10, atol=1e-12)
        spread = scale * (joint[:, t, t] - (joint[:, t, :t] * solved[..., 1]).sum(-1))
        torch.testing.assert_close(said.variance[:, t], spread, rtol=1e-10, atol=1e-12)
    density = MultivariateNormal(torch.zeros(3, 6).double(), kernel + 0.2 * torch.eye(6).double()).log_prob(episodes.y)
    gaussian = PrefixGaussian.of(kernel + 0.2 * torch.eye(6).double(), episodes.y)
    quadratic = gaussian.innovations.square().sum(-1)
    torch.testing.assert_close(
        density, -0.5 * (quadratic + gaussian.spread.log().sum(-1) + 6 * torch.tensor(2 * torch.pi).double().log())
    )


def test_gaussian_process_follows_a_curve_that_a_line_cannot(generator):
    x = 4 * torch.rand(40, 30, 1, generator=generator, dtype=torch.float64) - 2
    episodes = Pairs(x=x, y=torch.sin(2 * x[..., 0]), schema=Schema.numeric(1))

    def error(learner):
        return float(((learner.prequential(episodes).mean - episodes.y)[:, 20:] ** 2).mean())

    assert error(GaussianProcess()) < 1e-3
    assert error(KernelRidge()) < 1e-2
    assert error(EvidenceRidge()) > 0.2


def test_gaussian_process_classifies_what_is_not_linearly_separable(generator):
    x = torch.randn(6, 60, 2, generator=generator, dtype=torch.float64)
    y = (x.square().sum(-1) > 1.4).long()
    episodes = Pairs(x=x, y=y, schema=Schema.classes(2, 2))
    said = GaussianProcess().predict(episodes.prefix(50), x[:, 50:]).probabilities
    assert (said.argmax(-1) == y[:, 50:]).double().mean() > 0.85
    assert -said.gather(-1, y[:, 50:, None]).log().mean() < 0.4


def test_bad_settings():
    for make in (lambda: EvidenceRidge(()), lambda: LeaveOneOutRidge((1.0, 0.0)), lambda: KernelGrid((), (1.0,))):
        with pytest.raises(InputError):
            make()
