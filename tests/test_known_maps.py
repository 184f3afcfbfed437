"""Tasks that are linear in a known map of the inputs, windows and representations: worked out by hand."""

import math

import pytest
import torch

from contexture.errors import InputError
from contexture.learners.classical.ridge import Ridge
from contexture.learners.oracles.representation import SLOPE, Representation, rotation
from contexture.learners.oracles.window import OnWindow, windows
from contexture.protocols import Pairs, Schema
from contexture.randomness import generator
from contexture.tasks.representation_regression import RepresentationRegression, mean_square
from contexture.tasks.sliding_window import SlidingWindow

FP64 = torch.float64


def test_windows_hold_the_latest_row_first() -> None:
    x = torch.tensor([[[1.0, 2], [3, 4], [5, 6]]])
    assert windows(x, 3).tolist() == [[[1, 2, 0, 0, 0, 0], [3, 4, 1, 2, 0, 0], [5, 6, 3, 4, 1, 2]]]
    assert torch.equal(windows(x, 1), x)


def test_a_sliding_window_is_its_formula() -> None:
    drawn = SlidingWindow(num_features=2, num_points=6, length=3, noise=0.0).sample(4, generator=generator("window"))
    for b in range(4):
        weights = drawn.latents["weights"][b].view(3, 2)
        for t in range(6):
            wanted = sum(float(weights[j] @ drawn.x[b, t - j]) for j in range(min(3, t + 1)))
            assert float(drawn.y[b, t]) == pytest.approx(wanted)


def test_a_learner_on_windows_asks_its_queries_right_behind_the_context() -> None:
    drawn = SlidingWindow(num_features=2, num_points=7).sample(3, generator=generator("behind"))
    for length in (1, 2, 4):
        learner = OnWindow(length=length, learner=Ridge(penalty=0.1))
        along = learner.prequential(drawn).mean
        for t in range(7):
            asked = learner.predict(drawn.prefix(t), drawn.x[:, t : t + 1]).mean
            assert along is not None
            assert asked is not None
            torch.testing.assert_close(asked[:, 0], along[:, t])
    with pytest.raises(InputError, match="at least one input, not 0"):
        OnWindow(length=0)


def test_one_example_by_hand() -> None:
    """Shown y = 3 at x = 1, the window of x = 2 is (2, 1); with penalty 1, w = (1.5, 0) and 2 w_0 = 3."""
    shown = Pairs(x=torch.ones(1, 1, 1, dtype=FP64), y=torch.tensor([[3.0]], dtype=FP64), schema=Schema.numeric(1))
    said = OnWindow(length=2, learner=Ridge(penalty=1.0)).predict(shown, torch.tensor([[[2.0]]], dtype=FP64)).mean
    assert said is not None
    assert said.item() == pytest.approx(3.0)


def test_a_representation_by_hand() -> None:
    turned = rotation(3, 0, 5)
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3, dtype=FP64))
    x = torch.tensor([1.0, -2.0, 0.5], dtype=FP64)
    scale = math.sqrt(2 / (1 + SLOPE**2))
    wanted = [scale * max(float(row @ x), SLOPE * float(row @ x)) for row in turned]
    assert Representation(num_layers=1, seed=5)(x).tolist() == pytest.approx(wanted)
    assert not torch.allclose(rotation(3, 0, 5), rotation(3, 1, 5))


def test_the_representation_is_the_same_in_every_episode() -> None:
    task = RepresentationRegression(noise=0.0)
    drawn = task.sample(5, generator=generator("fixed"))
    assert torch.equal(drawn.latents["represented"], task.representation(drawn.x))
    clean = (drawn.latents["represented"] * drawn.latents["weights"].unsqueeze(1)).sum(-1)
    torch.testing.assert_close(drawn.y, clean)
    assert mean_square(4, 1, 0) == 4.0
    x = torch.randn(200_000, 4, generator=generator("size"), dtype=FP64)
    assert float(Representation(num_layers=1)(x).square().sum(1).mean()) == pytest.approx(4, rel=0.02)
