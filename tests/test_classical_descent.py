"""Gradient descent, Newton and online steps: by hand, and the errors that theory and earlier computations give."""

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.classical.gradient_descent import GradientDescent
from contexture.learners.classical.newton import Newton
from contexture.learners.classical.ols import OLS
from contexture.learners.classical.preconditioned_gradient_descent import PreconditionedGradientDescent
from contexture.learners.online.gradient_descent import OnlineGradientDescent
from contexture.learners.online.logistic import OnlineLogistic
from contexture.learners.online.normalised_lms import NormalisedLMS
from contexture.protocols import Pairs, Schema


def linear(generator, *, batch, time, features, uniform=False):
    if uniform:
        x = 2 * torch.rand(batch, time, features, generator=generator, dtype=torch.float64) - 1
    else:
        x = torch.randn(batch, time, features, generator=generator, dtype=torch.float64)
    w = torch.randn(batch, features, generator=generator, dtype=torch.float64)
    return Pairs(x=x, y=torch.einsum("btd,bd->bt", x, w), schema=Schema.numeric(features)), w


@pytest.mark.parametrize(
    ("features", "examples", "uniform", "ratio"),
    [
        (10, 10, True, 0.490),
        (10, 20, True, 0.327),
        (5, 20, False, 0.235),
        (20, 40, False, 0.333),
        (20, 20, False, 0.494),
    ],
)
def test_the_best_single_step_leaves_its_known_share(generator, features, examples, uniform, ratio):
    episodes, _ = linear(generator, batch=6000, time=examples + 1, features=features, uniform=uniform)
    guess = 1.52 if uniform else 1 / (1 + (features + 1) / examples)
    tuned = GradientDescent(steps=1).tuned(episodes, rates=[guess * share for share in (0.5, 0.8, 1.0, 1.25, 2.0)])
    if (features, examples) != (10, 20):
        assert tuned.rate == guess
    said = tuned.predict(episodes.prefix(examples), episodes.x[:, -1:]).mean[:, 0]
    target = episodes.y[:, -1]
    error = float((said - target).square().mean() / target.square().mean())
    assert error == pytest.approx(ratio, rel=0.08)
    if not uniform:
        assert error == pytest.approx((features + 1) / (examples + features + 1), rel=0.08)


def test_gradient_steps_by_hand():
    x, y = torch.tensor([[[1.0], [2.0]]], dtype=torch.float64), torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    # n = 1: w = 0 -> .1 * 2 = .2 -> .2 + .1 * 1.8;   n = 2: w = 0 -> .1 * (2 + 4) / 2 = .3 -> .3 + .1 * (6 - 1.5) / 2
    expected = torch.tensor([0.0, 0.38, 0.525], dtype=torch.float64)
    torch.testing.assert_close(GradientDescent(steps=2, rate=0.1).prefix_weights(x, y)[0, :, 0], expected)


def test_newton_doubles_where_gradient_descent_crawls(generator):
    """Errors of w, relative, of the two at d 20 with 40 examples; 12 Newton steps do what 160 gradient steps do."""
    episodes, w = linear(generator, batch=1000, time=40, features=20)

    def error(learner):
        return float((learner.weights(episodes.x, episodes.y) - w).square().sum(-1).mean() / 20)

    newton = [error(Newton(steps=k)) for k in (0, 1, 2, 3, 4, 5, 6)]
    assert newton == pytest.approx([0.60, 0.49, 0.37, 0.27, 0.19, 0.11, 0.060], rel=0.15)
    descent = [error(GradientDescent(steps=k)) for k in (1, 5, 10, 20)]
    assert descent == pytest.approx([0.45, 0.12, 0.050, 0.014], rel=0.15)
    nine, twelve = error(Newton(steps=9)), error(Newton(steps=12))
    forty, many = error(GradientDescent(steps=40)), error(GradientDescent(steps=160))
    assert 0.5 < nine / forty < 2
    assert 0.3 < twelve / many < 3
    assert error(Newton(steps=20)) < 1e-15


def test_newton_tends_to_least_squares_on_every_prefix(generator):
    episodes, _ = linear(generator, batch=20, time=9, features=4)
    exact = OLS().prefix_weights(episodes.x, episodes.y)
    regular = (torch.stack([torch.linalg.cond(episodes.x[:, :n]) for n in range(1, 10)], 1) < 20)[..., None]
    assert regular.double().mean() > 0.8
    newton = Newton(steps=24).prefix_weights(episodes.x, episodes.y)
    torch.testing.assert_close(newton[:, 1:] * regular, exact[:, 1:] * regular, rtol=1e-7, atol=1e-7)


def test_newton_by_hand():
    x, y = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]).double(), torch.tensor([[1.0, 2.0]]).double()
    # S = diag(1, 4), largest 4, M0 = S / 16, so M0 S = diag(1, 16) / 16 and w0 = (1/16, 1); w1 = (31/256, 1)
    expected = torch.tensor([31 / 256, 1.0]).double()
    torch.testing.assert_close(Newton(steps=1, scale=1.0).weights(x, y)[0], expected)


def test_the_exact_preconditioner_makes_one_step_least_squares(generator):
    episodes, w = linear(generator, batch=1, time=12, features=3)
    moments = episodes.x[0].mT @ episodes.x[0] / 12
    learner = PreconditionedGradientDescent(steps=1, rate=1.0, preconditioner=torch.linalg.inv(moments))
    torch.testing.assert_close(learner.weights(episodes.x, episodes.y), w)
    skewed = Pairs(x=episodes.x * torch.tensor([1.0, 30.0, 0.02]), y=episodes.y, schema=episodes.schema)
    target = torch.linalg.lstsq(skewed.x, skewed.y[..., None]).solution[..., 0]

    def error(learner):
        return float(((learner.weights(skewed.x, skewed.y) - target) / target).norm())

    assert error(PreconditionedGradientDescent(steps=60)) < 0.01
    assert error(GradientDescent(steps=60)) > 0.5


def test_online_steps_by_hand():
    x = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]], dtype=torch.float64)
    y = torch.tensor([[2.0, 6.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.5, 5.0]], dtype=torch.float64)
    torch.testing.assert_close(OnlineGradientDescent(rate=0.5).prefix_weights(x, y)[0], expected)
    # rates 1/1 and 1/5: (2, 0), then 4/5 (1, 2) more
    expected = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.8, 1.6]], dtype=torch.float64)
    torch.testing.assert_close(OnlineGradientDescent().prefix_weights(x, y)[0], expected)
    torch.testing.assert_close(NormalisedLMS(rate=1.0).prefix_weights(x, y)[0], expected)


def test_online_learners_learn(generator):
    episodes, w = linear(generator, batch=8, time=400, features=3)
    for learner in (OnlineGradientDescent(), NormalisedLMS()):
        assert (learner.weights(episodes.x, episodes.y) - w).norm(dim=-1).max() < 0.05
    labels = Pairs(x=episodes.x, y=(episodes.y > 0).long(), schema=Schema.classes(3, 2))
    right = OnlineLogistic().prequential(labels).probabilities[:, 200:].argmax(-1) == labels.y[:, 200:]
    assert right.double().mean() > 0.93


def test_bad_settings():
    for make in (
        lambda: Newton(scale=2.0),
        lambda: GradientDescent(steps=-1),
        lambda: PreconditionedGradientDescent(steps=-1),
        lambda: OnlineGradientDescent(rate=0.0),
        lambda: NormalisedLMS(rate=2.0),
        lambda: OnlineLogistic(rate=-1.0),
    ):
        with pytest.raises(InputError):
            make()
