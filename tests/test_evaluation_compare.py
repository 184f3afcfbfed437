import json
import math
from typing import Any

import pytest

from contexture.errors import InputError
from contexture.evaluation.compare import Comparison, compare, default_episodes
from evaluation_toys import Impatient, Line, Mean, Refitted, Ridge, Shy, Table

SETTINGS: dict[str, Any] = {"context": (1, 4, 8), "episodes": 30, "seeds": (0, 1)}


def small(**changes: Any) -> Comparison:
    learners = changes.pop("learners", {"mean": Mean(), "stiff": Ridge(strength=9.0), "refitted": Refitted()})
    return compare(changes.pop("task", Line()), learners, **{**SETTINGS, **changes})


@pytest.fixture(scope="module")
def made() -> Comparison:
    return small(command="contexture compare line", findings=("1 feature",))


def test_the_document_has_the_keys_promised_and_no_other(made: Comparison) -> None:
    document = json.loads(made.to_json())
    assert list(document) == ["schema", "task", "metric", "lower_is_better", "context", "interval", "learners"]
    assert document["task"] == "line"
    assert document["metric"] == "squared-error"
    assert document["lower_is_better"] is True
    assert document["context"] == [1, 4, 8]
    assert document["interval"] == {"level": 0.95, "method": "bootstrap over episodes within seeds"}
    keys = ["name", "kind", "value", "low", "high", "n", "seconds", "parameters", "state_bytes"]
    for learner in document["learners"]:
        assert list(learner) == keys
        assert learner["kind"] in {"classical", "in-context", "online"}
        assert len(learner["value"]) == len(learner["low"]) == len(learner["high"]) == 3
        assert learner["n"] == 60


def test_learners_keep_their_order_behind_the_oracle(made: Comparison) -> None:
    assert [m.name for m in made.measurements] == ["ridge (oracle)", "mean", "stiff", "refitted"]
    assert made.oracle == "ridge (oracle)"
    assert [m.name for m in made.contestants] == ["mean", "stiff", "refitted"]


def test_a_learner_that_is_the_oracle_is_not_measured_twice() -> None:
    found = small(learners={"mean": Mean(), "bayes": Ridge(strength=0.25)})
    assert [m.name for m in found.measurements] == ["mean", "bayes"]
    assert found.oracle == "bayes"


def test_everyone_sees_the_same_episodes(made: Comparison) -> None:
    # The refitted learner has the oracle's strength, so any difference would be one of episodes.
    assert made.of("refitted").value == pytest.approx(made.of("ridge (oracle)").value)


def test_the_tied_are_found_without_the_oracle(made: Comparison) -> None:
    assert [names[0] for names in made.tied[1:]] == ["refitted", "refitted"]
    assert all("ridge (oracle)" not in names for names in made.tied)


def test_distances_are_to_classical_references(made: Comparison) -> None:
    assert list(made.distances["refitted"]) == ["ridge (oracle)", "mean", "stiff"]
    assert made.distances["refitted"]["ridge (oracle)"] == pytest.approx((0, 0, 0), abs=1e-12)
    assert made.distances["mean"]["stiff"][2] > 0.1


def test_what_was_done_is_in_the_record(made: Comparison) -> None:
    details = json.loads(json.dumps(made.record(), allow_nan=False))["details"]
    assert details["settings"] == {"num_features": 2, "length": 9, "noise": 0.5, "episodes per seed": 30}
    assert details["seeds"] == [0, 1]
    assert details["command"] == "contexture compare line"
    assert details["findings"] == ["1 feature"]
    assert details["chance"] == 2.25
    assert details["complete"] is True
    assert details["environment"]["python"]
    assert "warm-up" in details["timing"]


def test_the_record_comes_back_as_it_was(made: Comparison) -> None:
    gaps = small(learners={"shy": Shy(), "mean": Mean()}, context=(0, 3, 6, 50))
    for comparison in (made, gaps):
        back = Comparison.from_json(json.dumps(comparison.record()))
        assert back.record() == comparison.record()
    assert Comparison.from_json(made.to_json()).to_json() == made.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "other"}', '{"schema": "contexture.comparison/1"}'])
def test_what_is_no_comparison_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a comparison"):
        Comparison.from_json(text)


def test_a_missing_value_is_null() -> None:
    found = small(learners={"shy": Shy()})
    learner = json.loads(found.to_json())["learners"][1]
    assert learner["value"][0] is not None
    assert learner["value"][1:] == learner["low"][1:] == learner["high"][1:] == [None, None]
    assert found.notes == {"shy": ("shy takes at most 3 examples",)}


def test_sizes_left_out_are_named_or_refused() -> None:
    found = small(context=(4, 50))
    assert found.context == (4,)
    assert found.left_out == {50: "before the last of an episode there are 8"}
    with pytest.raises(InputError, match="nothing fits a context of 50"):
        small(context=(4, 50), strict=True)
    with pytest.raises(InputError, match="nothing fits a context of 50"):
        small(context=(50,))


def test_a_learner_that_does_not_fit_is_skipped_with_its_reason() -> None:
    found = small(task=Table(classes=True), learners={"ridge": Ridge(), "mean": Mean()}, context=(5,), episodes=2)
    assert [m.name for m in found.measurements] == ["mean"]
    assert found.skipped == {"ridge": "ridge does not predict classes, which this task asks for"}


class Broken(Mean):
    """Divides by zero."""

    def prequential(self, episodes):
        raise ZeroDivisionError(f"{1} / {0}")


def test_a_fault_in_one_learner_costs_the_others_nothing() -> None:
    found = compare(Line(), {"mine": Broken(), "mean": Mean()}, context=[4], episodes=8)
    assert "mine" not in [row.name for row in found.measurements]
    assert found.of("mean").n > 0
    assert found.skipped["mine"].startswith("mine raised ZeroDivisionError in test_evaluation_compare.py, line ")
    assert found.skipped["mine"].endswith("1 / 0")


def test_interruption_leaves_what_is_done() -> None:
    found = small(learners={"mean": Mean(), "impatient": Impatient(), "stiff": Ridge(strength=9.0)})
    assert [m.name for m in found.measurements] == ["ridge (oracle)", "mean"]
    assert found.complete is False
    nothing = small(task=Table(), learners={"impatient": Impatient2()}, context=(3,), episodes=2)
    assert nothing.measurements == ()
    assert json.loads(nothing.to_json())["learners"] == []


class Impatient2(Mean):
    def predict(self, context: object, queries: object) -> Any:
        raise KeyboardInterrupt


def test_progress_names_each_learner() -> None:
    seen: list[tuple[int, int, float, str]] = []
    small(progress=lambda *said: seen.append(said))
    assert {index for index, *_ in seen} == {0, 1, 2, 3}
    assert {total for _, total, _, _ in seen} == {4}
    assert all(0 <= share <= 1 for _, _, share, _ in seen)
    assert seen[0][3].startswith("ridge (oracle): ")


def test_a_table_has_its_own_interval_and_number_of_splits() -> None:
    found = small(task=Table(), learners={"mean": Mean(), "ridge": Ridge()}, context=(4, 20), episodes=None)
    assert found.method == "corrected resampled t over splits (Nadeau and Bengio 2003)"
    assert found.of("ridge").n == 2 * default_episodes(Table())
    assert found.tied[1] == ("ridge",)
    assert found.oracle is None
    assert default_episodes(Line()) > default_episodes(Table())


def test_the_same_call_gives_the_same_numbers(made: Comparison) -> None:
    again = small()
    for first, second in zip(made.measurements, again.measurements, strict=True):
        assert (first.value, first.low, first.high) == (second.value, second.low, second.high)
    assert math.isfinite(made.measurements[0].seconds)
