import math
from typing import ClassVar

import pytest
import torch
from torch import nn

from contexture.errors import InputError
from contexture.evaluation.curve import draw, fitting, learning_curve, measure, score
from contexture.evaluation.footprint import Stopwatch, num_parameters, state_bytes
from contexture.evaluation.matching import distance, distances, jensen_shannon, squared_difference
from contexture.evaluation.metrics import find
from contexture.evaluation.samples import CurveSamples, contrast, tied_with_best
from contexture.evaluation.synthetic import BLOCK
from contexture.protocols import LearnerCard, Pairs
from evaluation_toys import NUMBERS, Line, Mean, Refitted, Ridge, Shy, Table

LINE = Line()


def curve(learner: object, **changes: object) -> CurveSamples:
    settings = {"context": (1, 4, 8), "episodes": 20, "seeds": (0, 1), **changes}
    return learning_curve(learner, LINE, **settings)  # type: ignore[arg-type]


def test_shapes_and_facts_of_a_synthetic_curve() -> None:
    samples = curve(Ridge())
    assert samples.losses.shape == (2, 20, 3)
    assert samples.answers.shape == (2, 20, 3, 1)
    assert (samples.name, samples.kind, samples.num_episodes) == ("ridge", "classical", 40)
    assert samples.parameters == 0
    # 8 examples of 2 features and a target, 8 bytes each.
    assert samples.state_bytes == 8 * 3 * 8
    assert 0 < samples.seconds < 1


def test_the_scores_are_those_of_the_episode() -> None:
    samples = curve(Ridge(), episodes=2, seeds=(3,))
    source = draw(LINE, episodes=2, seeds=(3,))
    block: Pairs = source.blocks[0][0]
    mean = Ridge().predict(block.prefix(4), block.x[:, 4:5]).mean
    torch.testing.assert_close(samples.losses[0, :, 1], (block.y[:, 4] - mean[:, 0]).square())


def test_refitting_gives_what_every_prefix_at_once_gives() -> None:
    torch.testing.assert_close(curve(Refitted()).losses, curve(Ridge()).losses)


def test_asking_for_more_episodes_keeps_the_first() -> None:
    few, many = curve(Ridge(), episodes=5), curve(Ridge(), episodes=BLOCK + 3)
    assert many.losses.shape[1] == BLOCK + 3
    torch.testing.assert_close(many.losses[:, :5], few.losses)


def test_excess_error_is_squared_error_without_the_noise() -> None:
    noisy = curve(Ridge(), episodes=400).losses.mean((0, 1))
    excess = curve(Ridge(), episodes=400, metric="excess-error").losses.mean((0, 1))
    torch.testing.assert_close(noisy - excess, torch.full((3,), 0.25, dtype=torch.float64), atol=0.08, rtol=0)


def test_relative_error_of_a_family_is_by_the_variance_of_its_targets() -> None:
    samples = learning_curve(Mean(), LINE, context=(0,), episodes=500, seeds=(0,), metric="relative-squared-error")
    assert samples.losses.mean().item() == pytest.approx(1, abs=0.1)


def test_a_table_is_scored_on_its_held_out_half() -> None:
    table = Table()
    samples = learning_curve(Ridge(), table, context=(2, 20), episodes=4, seeds=(0, 1))
    assert samples.losses.shape == (2, 4, 2)
    assert samples.answers.shape == (2, 4, 2, 20)
    split = list(table.splits(4, seed=1))[2]
    mean = Ridge().predict(split.train.prefix(2), split.test.x).mean
    scale = (split.test.y - split.train.y.mean()).square().mean()
    expected = (split.test.y - mean).square().mean() / scale
    torch.testing.assert_close(samples.losses[1, 2, 0], expected)


def test_the_training_mean_has_relative_error_one() -> None:
    samples = learning_curve(Mean(), Table(), context=(20,), episodes=3, seeds=(0,))
    torch.testing.assert_close(samples.losses, torch.ones(1, 3, 1, dtype=torch.float64))


def test_a_table_of_classes() -> None:
    samples = learning_curve(Mean(), Table(classes=True), context=(0, 20), episodes=3, seeds=(0,))
    torch.testing.assert_close(samples.losses[..., 0], torch.full((1, 3), math.log(2), dtype=torch.float64))
    assert samples.answers.shape == (1, 3, 2, 20, 2)
    area = learning_curve(Mean(), Table(classes=True), context=(5,), episodes=3, seeds=(0,), metric="roc-auc")
    torch.testing.assert_close(area.losses, torch.full((1, 3, 1), 0.5, dtype=torch.float64))


def test_measure_gives_the_mean_inside_its_interval() -> None:
    found = measure(curve(Ridge(), episodes=200))
    assert found.context == (1, 4, 8)
    assert found.n == 400
    for value, low, high in zip(found.value, found.low, found.high, strict=True):
        assert 0 <= low < value < high


def test_an_interval_stays_inside_the_bounds_of_its_metric() -> None:
    found = measure(learning_curve(Ridge(), Table(), context=(2,), episodes=3, seeds=(0,)))
    assert found.low == (0.0,)


def test_a_refusal_leaves_a_gap_and_its_sentence() -> None:
    samples = curve(Shy())
    found = measure(samples)
    assert math.isfinite(found.value[0])
    assert math.isnan(found.value[1])
    assert samples.notes == ("shy takes at most 3 examples",)


def test_no_interval_leaves_a_gap_and_says_so() -> None:
    samples = curve(Mean(), metric="coverage-80")
    assert math.isnan(measure(samples).value[0])
    assert "no interval" in samples.notes[0]


def test_coverage_of_the_right_model_is_right() -> None:
    assert measure(curve(Ridge(), episodes=500, metric="coverage-80")).value[2] == pytest.approx(0.8, abs=0.04)


class Doubled(Mean):
    """Predicts numbers alone."""

    card = LearnerCard(name="doubled", summary="numbers only", kind="classical", targets=NUMBERS)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: curve(Mean(), context=(3, 9)),
            "nothing fits a context of 9: before the last of an episode there are 8",
        ),
        (lambda: curve(Mean(), context=()), "context sizes"),
        (lambda: curve(Mean(), context=(-1,)), "context sizes"),
        (lambda: curve(Mean(), episodes=0), "at least one episode"),
        (lambda: curve(Mean(), metric="log-loss"), "log-loss does not score a regression: there are absolute-error"),
        (lambda: curve(Mean(), metric="no"), "no metric is named"),
        (
            lambda: learning_curve(Doubled(), Table(classes=True), context=(3,), episodes=1, seeds=(0,)),
            "doubled does not predict classes",
        ),
    ],
)
def test_what_does_not_fit_is_said(call: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()  # type: ignore[operator]


def test_sizes_that_do_not_fit_are_named() -> None:
    kept, left_out = fitting((20, 5, 21, 5), draw(Table(), episodes=1, seeds=(0,)))
    assert kept == (5, 20)
    assert left_out == {21: "the training half holds 20"}


def test_progress_goes_from_nothing_to_all() -> None:
    seen: list[float] = []
    curve(Ridge(), progress=lambda share, note: seen.append(share))
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 1


def test_contrast_is_paired() -> None:
    first, second = curve(Ridge(), episodes=300), curve(Ridge(strength=4.0), episodes=300)
    found = contrast(first, second)
    torch.testing.assert_close(found.value, (first.losses - second.losses).mean((0, 1)))
    assert found.excludes_zero[1]
    with pytest.raises(InputError, match="not measured on the same episodes"):
        contrast(first, curve(Ridge(), episodes=20))


def test_the_tied_are_those_that_pairing_cannot_tell_apart() -> None:
    source = draw(LINE, episodes=300, seeds=(0, 1))

    def scored(learner: object, name: str) -> CurveSamples:
        return score(learner, source, context=(0, 6), metric=find("squared-error"), name=name)  # type: ignore[arg-type]

    same = [scored(Ridge(), "ridge"), scored(Ridge(strength=0.26), "nearly"), scored(Mean(), "mean")]
    tied = tied_with_best(same)
    assert set(tied[0]) == {"ridge", "nearly", "mean"}
    assert set(tied[1]) == {"ridge", "nearly"}
    gap = [scored(Ridge(), "ridge"), score(Shy(), source, context=(0, 6), metric=find("squared-error"))]
    assert tied_with_best(gap)[1] == ("ridge",)
    assert tied_with_best([]) == ()


def test_distance_by_hand() -> None:
    first = curve(Mean(), context=(2,), episodes=2, seeds=(0,))
    answers = torch.tensor([1.0, 3.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    a, b = (_with_answers(first, values) for values in (answers + 1, answers))
    # The reference's predictions 1 and 3 have variance 1; the difference is 1 everywhere.
    assert distance(a, b).item() == pytest.approx(1)
    assert distance(_with_answers(first, answers + 0.5), b).item() == pytest.approx(0.25)
    assert distance(a, _with_answers(first, torch.full_like(answers, 5))).isnan().all()


def test_a_constant_in_each_split_has_no_signal() -> None:
    answers = torch.tensor([[1.0, 3.0], [11.0, 13.0]], dtype=torch.float64).reshape(1, 2, 1, 2)
    constant = answers.mean(3, keepdim=True).expand_as(answers)
    assert squared_difference(answers, constant).isnan().all()
    assert squared_difference(constant, answers).item() == pytest.approx(1)


def _with_answers(samples: CurveSamples, answers: torch.Tensor) -> CurveSamples:
    from dataclasses import replace

    return replace(samples, answers=answers)


def test_distance_of_probabilities_by_hand() -> None:
    left, right = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    shape = (1, 1, 1, 1, 2)
    assert jensen_shannon(left.expand(shape), right.expand(shape)).item() == pytest.approx(1)
    assert jensen_shannon(left.expand(shape), left.expand(shape)).item() == 0


def test_the_nearest_reference_is_the_algorithm_that_runs() -> None:
    source = draw(LINE, episodes=100, seeds=(0,))
    strengths = (0.01, 0.25, 4.0)
    references = [
        score(Ridge(strength=s), source, context=(4,), metric=find("squared-error"), name=str(s)) for s in strengths
    ]
    unknown = score(Refitted(strength=0.3), source, context=(4,), metric=find("squared-error"), name="unknown")
    row = distances([unknown], references)["unknown"]
    assert min(row, key=lambda name: row[name]) == "0.25"
    assert list(distances(references, references)["0.01"]) == ["0.25", "4.0"]


class Wrapped(Mean):
    """A learner around two modules that share a layer, with a state of its own."""

    card: ClassVar[LearnerCard] = LearnerCard(name="wrapped", summary="modules", kind="in-context", targets=NUMBERS)

    def __init__(self) -> None:
        shared = nn.Linear(3, 2)
        self.models = {"a": nn.Sequential(shared, nn.Linear(2, 1)), "b": shared}

    def state_bytes(self, context: Pairs) -> int:
        return 5 * context.x.shape[2]


def test_parameters_are_counted_once_and_state_as_the_learner_says() -> None:
    assert num_parameters(Wrapped()) == 8 + 3
    assert num_parameters(Mean()) == 0
    pairs = LINE.sample(4, generator=torch.Generator().manual_seed(0))
    assert state_bytes(Wrapped(), pairs) == 5 * 2
    assert state_bytes(Mean(), pairs.prefix(3)) == 3 * 3 * 8


def test_the_first_call_is_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 50.0, 100.0, 102.0, 200.0, 204.0, 300.0, 309.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    watch = Stopwatch()
    assert math.isnan(watch.seconds)
    for _ in range(4):
        watch.time(lambda: None, num_predictions=2)
    assert watch.seconds == 2.0
