import math

import pytest
import torch

from contexture.errors import InputError
from contexture.evaluation.metrics import METRICS, Truth, find
from contexture.protocols import Prediction


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


NUMBERS = Prediction(mean=row(1, 2, 5), variance=row(1, 4, 0.25))
TRUE_NUMBERS = Truth(y=row(2, 2, 3), clean=row(1.5, 2, 4), scale=torch.tensor([[2.0]]))
CLASSES = Prediction(probabilities=torch.tensor([[[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [0.0, 0.5, 0.5]]]))
TRUE_CLASSES = Truth(y=torch.tensor([[0, 1, 0]]))

BY_HAND = [
    ("squared-error", [1, 0, 4]),
    ("excess-error", [0.25, 0, 1]),
    ("relative-squared-error", [0.5, 0, 2]),
    ("absolute-error", [1, 0, 2]),
    # 1 within 1.28 standard deviations; 0 of them; 4 of them.
    ("coverage-80", [1, 1, 0]),
    ("coverage-95", [1, 1, 0]),
    ("width-80", [2.5631, 5.1262, 1.2816]),
    ("width-95", [3.9199, 7.8399, 1.9600]),
]


@pytest.mark.parametrize(("name", "expected"), BY_HAND)
def test_scores_of_numbers_by_hand(name: str, expected: list[float]) -> None:
    torch.testing.assert_close(find(name)(NUMBERS, TRUE_NUMBERS), row(*expected), atol=1e-4, rtol=0)


def test_pinball_by_hand() -> None:
    # Both quantile ends lie at 0, the truth at 1: the loss of quantile q is q, and 0.025 + ... + 0.975 = 2.5.
    flat = Prediction(mean=row(0), levels=(0.025, 0.975), quantiles=torch.zeros(1, 1, 2, dtype=torch.float64))
    torch.testing.assert_close(find("pinball")(flat, Truth(y=row(1))), row(0.5))


def test_pinball_is_least_at_the_true_quantiles(generator: torch.Generator) -> None:
    y = torch.randn(1, 20_000, dtype=torch.float64, generator=generator)

    def loss(scale: float) -> float:
        said = Prediction(mean=torch.zeros_like(y), variance=torch.full_like(y, scale**2))
        return find("pinball")(said, Truth(y=y)).mean().item()

    assert loss(1.0) < min(loss(0.8), loss(1.25))


def test_log_loss_by_hand_and_at_the_floor() -> None:
    loss = find("log-loss")(CLASSES, TRUE_CLASSES)
    expected = row(-math.log(0.7), -math.log(0.4), -math.log(1e-6))
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)


def test_classes_that_tie_share_the_error() -> None:
    torch.testing.assert_close(find("error-rate")(CLASSES, TRUE_CLASSES), row(0, 0.5, 1))


def test_area_under_the_curve_by_hand() -> None:
    # Scores of class 1: positives .9 and .4, negatives .4 and .2: pairs won 1, 1, 1/2, 1 of 4.
    score = torch.tensor([[0.9, 0.4, 0.4, 0.2]], dtype=torch.float64)
    binary = Prediction(probabilities=torch.stack([1 - score, score], -1))
    area = find("roc-auc")(binary, Truth(y=torch.tensor([[1, 1, 0, 0]])))
    torch.testing.assert_close(area, torch.tensor([3.5 / 4], dtype=torch.float64))


def test_area_under_the_curve_counts_pairs_won(generator: torch.Generator) -> None:
    y = torch.randint(3, (1, 60), generator=generator)
    p = torch.rand(1, 60, 3, dtype=torch.float64, generator=generator).mul(8).round().add(1)
    p = p / p.sum(-1, keepdim=True)
    areas = []
    for code in range(3):
        positive, negative = p[0, y[0] == code, code], p[0, y[0] != code, code]
        gap = positive[:, None] - negative
        areas.append((gap > 0).double().mean() + (gap == 0).double().mean() / 2)
    expected = torch.stack(areas).mean().unsqueeze(0)
    torch.testing.assert_close(find("roc-auc")(Prediction(probabilities=p), Truth(y=y)), expected)


def test_area_is_undefined_on_one_class() -> None:
    even = Prediction(probabilities=torch.full((1, 3, 2), 0.5))
    assert find("roc-auc")(even, Truth(y=torch.ones(1, 3, dtype=torch.int64))).isnan().all()


@pytest.mark.parametrize("name", ["coverage-80", "coverage-95", "width-80", "width-95", "pinball"])
def test_no_spread_is_no_number(name: str) -> None:
    assert find(name)(Prediction(mean=row(1, 2)), Truth(y=row(1, 2))).isnan().all()


def test_no_prediction_is_no_error_rate() -> None:
    nothing = Prediction(probabilities=torch.full((1, 1, 2), torch.nan))
    assert find("error-rate")(nothing, Truth(y=torch.tensor([[0]]))).isnan().all()


@pytest.mark.parametrize(
    ("name", "prediction", "truth", "said"),
    [
        ("squared-error", CLASSES, TRUE_CLASSES, "scores numbers"),
        ("log-loss", NUMBERS, TRUE_NUMBERS, "scores class probabilities"),
        ("excess-error", NUMBERS, Truth(y=row(1, 2, 3)), "noiseless target"),
        ("relative-squared-error", NUMBERS, Truth(y=row(1, 2, 3)), "scale"),
    ],
)
def test_what_cannot_be_scored_is_said(name: str, prediction: Prediction, truth: Truth, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find(name)(prediction, truth)


def test_an_unknown_metric_names_the_known() -> None:
    with pytest.raises(InputError, match=r"no metric is named 'mse': there are absolute-error, coverage-80"):
        find("mse")


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.summary.endswith(".")
        assert metric.unit
        assert metric.targets
        assert (metric.level is not None) == (metric.direction == "level")


def test_badness_is_less_for_better() -> None:
    worse, better = torch.tensor(0.7), torch.tensor(0.9)
    assert find("roc-auc").badness(better) < find("roc-auc").badness(worse)
    assert find("log-loss").badness(worse) < find("log-loss").badness(better)
    assert find("coverage-80").badness(torch.tensor(0.78)) < find("coverage-80").badness(better)
