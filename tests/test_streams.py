"""Learning on a stream: prediction before learning, chunks and single pairs alike, growth, memory, saving."""

import copy
import json
import math
import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contexture.cli import main
from contexture.errors import CheckpointError, InputError
from contexture.evaluation.streams import Persistence, river_rivals, score_rival
from contexture.models.state import state_bytes
from contexture.models.stream import StreamModel, StreamModelConfig, log_chances
from contexture.randomness import generator
from contexture.store.checkpoint import write_checkpoint
from contexture.tasks.streams import named_stream, permuted_digits
from contexture.training.streams.config import StreamConfig
from contexture.training.streams.learner import StreamLearner
from contexture.training.streams.past import Past
from contexture.training.streams.reader import Pair, PairReader
from contexture.training.streams.running import Running
from contexture.training.streams.said import Said
from contexture.training.streams.saving import load_stream, save_stream, stream_from_bytes, stream_to_bytes

Row = tuple[dict[str, Any], Any]


def small(**settings: Any) -> StreamConfig:
    return StreamConfig(
        **{"context": 8, "chunk": 4, "replay": 2, "width": 16, "num_heads": 2, "memory": 64, **settings}
    )


def halves(count: int, *, seed: int = 0) -> list[Row]:
    """Two features; the class says whether the first is positive."""
    drawn = torch.randn(count, 2, generator=generator(seed, "halves")).tolist()
    return [({"a": a, "b": b}, "up" if a > 0 else "down") for a, b in drawn]


def slopes(count: int) -> list[Row]:
    drawn = torch.randn(count, generator=generator(0, "slopes")).tolist()
    return [({"a": a}, 100 + 5 * a) for a in drawn]


def absorbed(learner: StreamLearner, rows: list[Row]) -> list[Said]:
    return learner.absorb([row for row, _ in rows], [y for _, y in rows])


def one_by_one(learner: StreamLearner, rows: list[Row]) -> Iterator[Said]:
    for row, y in rows:
        yield learner.predict(row)
        learner.learn(row, y)


def numbers(said: Said) -> tuple[float, ...]:
    return (*said.log_chances, said.mean, said.variance)


@pytest.mark.parametrize("settings", [{}, {"context": 0}, {"replay": 0}, {"rate": 0.0}, {"target": "regression"}])
def test_whole_chunks_say_what_single_pairs_say(settings: dict[str, Any]) -> None:
    rows = slopes(30) if settings.get("target") else halves(30)
    single = list(one_by_one(StreamLearner(small(**settings)), rows))
    chunks = absorbed(StreamLearner(small(**settings)), rows)
    assert [said.labels for said in single] == [said.labels for said in chunks]
    for a, b in zip(single, chunks, strict=True):
        assert numbers(a) == pytest.approx(numbers(b), rel=1e-4, abs=1e-5)


def test_absorbing_in_parts_says_the_same() -> None:
    rows, whole, parts = halves(41), StreamLearner(small()), StreamLearner(small())
    expected, said = absorbed(whole, rows), []
    for part in (rows[:3], rows[3:4], rows[4:19], rows[19:]):
        said += absorbed(parts, part)
    for a, b in zip(expected, said, strict=True):
        assert numbers(a) == pytest.approx(numbers(b), rel=1e-4, abs=1e-5)


def keeps_order(kind: type[StreamLearner], cut: int) -> bool:
    """Whether what is said up to `cut` stays as it is when the target there and everything later change."""
    rows = halves(24)
    other = {"up": "down", "down": "up"}
    changed = [*rows[:cut], (rows[cut][0], other[rows[cut][1]]), *halves(24 - cut - 1, seed=1)]
    first, second = (absorbed(kind(small()), stream) for stream in (rows, changed))
    return [numbers(said) for said in first[: cut + 1]] == [numbers(said) for said in second[: cut + 1]]


@pytest.mark.parametrize("cut", [0, 3, 4, 10, 15, 23])
def test_what_comes_later_changes_nothing(cut: int) -> None:
    assert keeps_order(StreamLearner, cut)


class PeeksAtTheChunk(StreamLearner):
    """Learns from the chunk before it says anything of it."""

    def _step(self) -> torch.Tensor:
        chunk = list(self.pending)
        super()._step()
        values, present, y, _ = self._batch([chunk])
        return self.model.stream(values, present, y, self.model.init_state(1))[0][0].detach()


class ScalesByTheFuture(StreamLearner):
    """Takes its scales from the whole chunk."""

    def absorb(self, rows: Any, targets: Any) -> list[Said]:
        rows = list(rows)
        mean = sum(row["a"] for row in rows) / len(rows)
        return super().absorb([{**row, "a": row["a"] - mean * row["b"]} for row in rows], targets)


class ShiftsTheTarget(StreamLearner):
    """Shows the target at x already."""

    def _batch(self, rows: Any) -> Any:
        values, present, y, known = super()._batch(rows)
        return values + 0.01 * y.unsqueeze(-1), present, y, known


@pytest.mark.parametrize("mutant", [PeeksAtTheChunk, ScalesByTheFuture, ShiftsTheTarget])
def test_a_learner_that_sees_the_future_is_found(mutant: type[StreamLearner]) -> None:
    assert not all(keeps_order(mutant, cut) for cut in (4, 9, 10))


def test_prediction_changes_nothing() -> None:
    learner = StreamLearner(small())
    absorbed(learner, halves(18))
    before = stream_to_bytes(learner)
    first = learner.predict({"a": 1.0, "c": 3.0, "d": "new"})
    assert learner.predict({"a": 1.0, "c": 3.0, "d": "new"}) == first
    assert stream_to_bytes(learner) == before


def test_it_learns_what_its_context_shows_and_its_weights_hold() -> None:
    rows = halves(800)
    losses = []
    for rate in (3e-3, 0.0):
        said = absorbed(StreamLearner(small(rate=rate)), rows)
        losses.append(sum(one.log_loss(y) for one, (_, y) in zip(said, rows, strict=True)) / len(rows))
    assert losses[0] < 0.6 * math.log(2)
    assert losses[1] > 0.9 * math.log(2)


def test_the_context_adapts_faster_than_weights_do() -> None:
    """The class stays for 20 pairs and is then drawn anew: weights alone cannot follow, a context can."""
    source = generator(0, "stays")
    rows: list[Row] = []
    for _ in range(150):
        label = int(torch.randint(2, (), generator=source))
        rows += [({"a": value}, label) for value in torch.randn(20, generator=source).tolist()]
    losses = []
    for context in (16, 0):
        said = absorbed(StreamLearner(small(context=context, rate=3e-3, chunk=10)), rows)
        late = [one.log_loss(y) for one, (_, y) in zip(said, rows, strict=True)][-1000:]
        losses.append(sum(late) / len(late))
    assert losses[0] < 0.5
    assert losses[1] > 0.65


def test_numbers_are_predicted_in_their_own_unit() -> None:
    rows = slopes(600)
    said = absorbed(StreamLearner(small(target="regression", rate=3e-3)), rows)
    errors = [abs(one.mean - y) for one, (_, y) in zip(said[-200:], rows[-200:], strict=True)]
    assert sum(errors) / 200 < 0.4 * 4  # of a mean absolute deviation of 4
    assert said[-1].log_loss(rows[-1][1]) == pytest.approx(
        0.5 * math.log(2 * math.pi * said[-1].variance) + (said[-1].mean - rows[-1][1]) ** 2 / 2 / said[-1].variance
    )


def test_growth_changes_nothing_that_is_said() -> None:
    learner, twin = StreamLearner(small()), StreamLearner(small())
    absorbed(learner, halves(16))
    absorbed(twin, halves(16))
    twin.make_room(20, 20)
    assert twin.model.config.num_slots == 32
    assert twin.model.config.num_classes == 32
    probe = {"a": 0.3, "b": -1.0}
    assert numbers(learner.predict(probe)) == pytest.approx(numbers(twin.predict(probe)), rel=1e-5)
    # The moments went with the weights: the next steps are the same too.
    further = halves(12, seed=5)
    for a, b in zip(absorbed(learner, further), absorbed(twin, further), strict=True):
        assert numbers(a)[:-2] == pytest.approx(numbers(b)[:-2], rel=1e-3, abs=1e-4)


def test_features_and_classes_may_come_late() -> None:
    learner = StreamLearner(small())
    absorbed(learner, halves(10))
    rows: list[Row] = [({f"f{n}": float(n), "colour": f"c{n % 3}"}, n) for n in range(30)]
    said = absorbed(learner, rows)
    assert len(learner.reader.slots) == 2 + 30 + 3
    assert set(learner.reader.labels) == {"up", "down", *range(30)}
    assert all(math.isfinite(one.log_loss(y)) for one, (_, y) in zip(said, rows, strict=True))
    assert sum(math.exp(value) for value in said[-1].log_chances) == pytest.approx(1.0, abs=1e-5)


def test_memory_is_bounded() -> None:
    learner = StreamLearner(small())
    absorbed(learner, halves(100))
    size = state_bytes(learner.states)
    absorbed(learner, halves(200))
    assert len(learner.past.pairs) == 64
    assert state_bytes(learner.states) == size


def test_a_saved_stream_goes_on_bit_for_bit(tmp_path: Path) -> None:
    rows = halves(90)
    for cut in (0, 3, 41):  # before anything, in a chunk, after many
        learner = StreamLearner(small())
        absorbed(learner, rows[:cut])
        save_stream(learner, tmp_path / str(cut))
        resumed = load_stream(tmp_path / str(cut))
        copied = stream_from_bytes(stream_to_bytes(learner))
        expected = absorbed(learner, rows[cut:])
        assert absorbed(resumed, rows[cut:]) == expected
        assert absorbed(copied, rows[cut:]) == expected


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", step=0, tensors={"model": {}}, state={"kind": "else"})
    with pytest.raises(CheckpointError, match="holds no stream learner"):
        load_stream(tmp_path / "other")


def test_scales_are_those_of_the_columns() -> None:
    values = np.array([[1.0, 5.0], [2.0, np.nan], [4.0, 7.0], [9.0, 6.0]])
    running = Running.of(2)
    for row in values:
        running.add(np.nan_to_num(row), ~np.isnan(row))
    assert running.mean == pytest.approx(np.nanmean(values, axis=0))
    assert running.unit == pytest.approx(np.nanstd(values, axis=0))
    fresh = Running.of(1)
    for number in (1.0, 2.0):
        fresh.add(np.array([number]), np.array([True]))
    # 1, 2 and 6 have mean 3 and standard deviation sqrt(14 / 3).
    assert fresh.scaled(np.array([6.0]), np.array([True])) == pytest.approx([3 / math.sqrt(14 / 3)])


def test_replay_streams_run_on_and_start_elsewhere() -> None:
    config = small(replay=1, stretch=3, memory=40)
    past = Past(config)
    pair = [Pair(np.zeros(1), np.zeros(1, dtype=bool), float(n), 0) for n in range(60)]
    assert past.replayed(0, generator=generator(0)) == ([], [])
    past.add(pair[:40])
    source, starts, seen = generator(1), [], []
    for _ in range(7):
        (row,), started = past.replayed(0, generator=source)
        starts.append(bool(started))
        seen.append([int(one.y) for one in row])
    for before, after, started in zip(seen, seen[1:], starts[1:], strict=False):
        assert started or after[0] == before[-1] + 1
        assert after == list(range(after[0], after[0] + 4))
    assert starts[0]
    assert 2 <= sum(starts) <= 7
    past.add(pair[40:])
    assert [int(one.y) for one in past.pairs] == list(range(20, 60))


def test_features_are_read_as_numbers_texts_and_truth_values() -> None:
    reader = PairReader("classification", num_slots=8)
    first = {"n": 2, "t": "red", "b": True, "none": None}
    reader.meet(first, 1)
    assert not reader.take(first, 1, known=0).present.any()  # nothing of it was known before
    assert reader.slots == {"b=True": 0, "n": 1, "none": 2, "t=red": 3}
    _, present = reader.show({"n": 5.0, "t": "red", "b": False, "none": None, "missing": math.nan})
    assert present.tolist() == [False, True, False, True, False, False, False, False]


def test_the_unmet_class_has_the_rest_of_the_probability() -> None:
    said = log_chances(torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor(1)).exp()
    total = math.e + 1
    assert said.tolist() == pytest.approx([math.e / total, 0.0, 0.0, 1 / total])


def test_a_model_grows_without_forgetting() -> None:
    model = StreamModel(StreamModelConfig(num_slots=2, num_classes=2), generator=generator(0))
    values, present = torch.randn(1, 3, 2, generator=generator(1)), torch.ones(1, 3, 2)
    y, state = torch.tensor([[0, 1, 1]]), model.init_state(1)
    before = model.stream(values, present, y, state)[0]
    model.grow(num_slots=4, num_classes=4, generator=generator(2))
    wider = [torch.cat((part, torch.zeros_like(part)), -1) for part in (values, present)]
    after = model.stream(*wider, y, state)[0]
    assert torch.allclose(after[..., [0, 1, 4]], before, atol=1e-6)


def test_bad_input_is_refused_in_one_sentence() -> None:
    learner = StreamLearner(small())
    numeric = StreamLearner(small(target="regression"))
    for bad in (
        lambda: learner.learn({"a": [1]}, "x"),
        lambda: learner.learn({"a": 1.0}, ("x",)),
        lambda: numeric.learn({"a": 1.0}, "many"),
        lambda: numeric.learn({"a": 1.0}, math.nan),
        lambda: small(chunk=0),
        lambda: small(rate=-1.0),
        lambda: small(rate=math.nan),
        lambda: small(memory=2),
        lambda: StreamLearner(small(width=6)),
        lambda: StreamConfig(target="words"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError) as refusal:
            bad()
        assert "\n" not in str(refusal.value)
    assert learner.seen == 0
    assert not learner.reader.slots


def test_river_finds_nothing_wrong() -> None:
    from river import checks

    from contexture.estimators.river import ContextStreamClassifier, ContextStreamRegressor

    settings = {"context": 4, "chunk": 8, "replay": 1, "width": 8, "num_heads": 2}
    for kind in (ContextStreamClassifier, ContextStreamRegressor):
        names = []
        for check in checks.yield_checks(kind(**settings)):
            check(kind(**settings))
            names.append(check.__name__)
        assert len(names) > 20


def test_rivers_face_saves_copies_and_goes_on(tmp_path: Path) -> None:
    from contexture.estimators.river import ContextStreamClassifier, ContextStreamRegressor

    model = ContextStreamClassifier(chunk=4, width=8, num_heads=2)
    assert model.predict_one({"a": 1.0}) is None
    for row, y in halves(30):
        model.learn_one(row, y)
    model.save(tmp_path / "saved")
    others = [ContextStreamClassifier.load(tmp_path / "saved"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for row, y in halves(20, seed=2):
        said = model.predict_proba_one(row)
        assert sum(said.values()) == pytest.approx(1.0)
        model.learn_one(row, y)
        for other in others:
            assert other.predict_proba_one(row) == said
            other.learn_one(row, y)
    assert model.num_seen == 50
    with pytest.raises(InputError, match="classification of a stream"):
        ContextStreamRegressor.load(tmp_path / "saved")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "drifting.csv"
    lines = ["a,colour,label"]
    for n, (row, y) in enumerate(halves(160)):
        lines.append(
            f"{row['a']},{'red' if row['b'] > 0 else 'blue'},{y if n < 80 else {'up': 'down', 'down': 'up'}[y]}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_command_compares_learners_on_a_stream(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    figure = tmp_path / "stream.svg"
    names = "context-stream,persistence,hoeffding tree"
    arguments = ["compare", str(table), "--stream", "--target", "label", "--learners", names, "--run-dir", "runs"]
    assert main([*arguments, "--json", "--figure", str(figure)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [score["name"] for score in said["scores"]] == ["context-stream", "persistence", "hoeffding tree"]
    assert said["num_pairs"] == 160
    for score in said["scores"]:
        assert len(score["windows"]) == math.ceil(160 / said["window"])
        assert 0 <= score["accuracy"] <= 1
    assert "persistence" in figure.read_text()
    # The same command takes what is kept, and prints a table of it.
    kept = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()} == kept
    assert "pairs a second" in capsys.readouterr().out


def test_the_command_refuses_what_is_no_stream(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["compare", "linear-regression", "--stream"],
        ["compare", str(table), "--stream", "--target", "label", "--context", "20"],
        ["compare", str(table), "--stream", "--target", "label", "--learners", "oracle"],
        ["compare", str(table), "--stream", "--target", "missing"],
    ):
        assert main(arguments) == 2
        assert capsys.readouterr().err.strip().splitlines()[-1].startswith("contexture: ")


def test_a_stream_with_a_name_needs_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    figure = tmp_path / "digits.svg"
    assert main(["compare", "permuted-digits", "--stream", "--learners", "persistence", "--figure", str(figure)]) == 0
    assert "permuted-digits" in capsys.readouterr().out
    assert figure.read_text().count('id="stream-drift-') == 19
    assert main(["compare", "phishing", "--stream", "--target", "x"]) == 2
    assert "is no file" in capsys.readouterr().err


def test_labels_trade_places_and_images_stay() -> None:
    stream = permuted_digits(num_pairs=3000, every=500)
    assert stream.drifts == (500, 1000, 1500, 2000, 2500)
    plain = {tuple(row.values()): y for row, y in zip(stream.rows[:500], stream.targets[:500], strict=True)}
    assert len(plain) == 500
    for start in (2000, 2500):  # in the second pass
        # Whatever an image was called before, all of its digit are called alike now.
        called: dict[Any, set[Any]] = {}
        for row, y in zip(stream.rows[start : start + 500], stream.targets[start : start + 500], strict=True):
            if tuple(row.values()) in plain:
                called.setdefault(plain[tuple(row.values())], set()).add(y)
        assert all(len(names) == 1 for names in called.values())
        assert any(names != {digit} for digit, names in called.items())
    with pytest.raises(InputError, match="not 0 and 500"):
        permuted_digits(num_pairs=0)
    with pytest.raises(InputError, match="permuted-digits, bananas"):
        named_stream("nothing")


def test_rivers_streams_come_by_name() -> None:
    sizes = {name: len(named_stream(name).rows) for name in ("phishing", "trump-approval", "chick-weights")}
    assert sizes == {"phishing": 1250, "trump-approval": 1001, "chick-weights": 578}
    assert named_stream("trump-approval").kind == "regression"


def test_rivals_read_texts() -> None:
    rows = [{"a": float(n), "colour": "red" if n % 2 else "blue"} for n in range(60)]
    targets = [row["colour"] == "red" for row in rows]
    for make in river_rivals("classification").values():
        losses = [loss for piece, _ in score_rival(make(), "classification", rows, targets) for loss in piece]
        assert all(math.isfinite(loss) for loss in losses)


def test_classes_trade_names_in_some_of_what_is_replayed() -> None:
    past = Past(small(replay=2, relabelled=1))
    past.add([Pair(np.zeros(1), np.zeros(1, dtype=bool), float(n % 5), 5) for n in range(40)])
    source = generator(3)
    for _ in range(6):
        (renamed, plain), _ = past.replayed(5, generator=source)
        assert sorted(past.names[0]) == [0, 1, 2, 3, 4]
        assert [int(b.y - a.y) % 5 for a, b in pairwise(plain)] == [1, 1, 1]
        steps = [past.names[0].index(int(one.y)) for one in renamed]
        assert [(b - a) % 5 for a, b in pairwise(steps)] == [1, 1, 1]


def test_it_begins_as_kernel_regression() -> None:
    """With weights that stay as drawn, the nearest of two clusters names the class, whatever it is called."""
    drawn = torch.randn(300, 8, generator=generator(0, "clusters")).tolist()
    rows = [
        {f"f{n}": value + (2.0 if place % 2 else -2.0) for n, value in enumerate(x)} for place, x in enumerate(drawn)
    ]
    targets = [("odd", "even")[(place % 2) ^ (place >= 150)] for place in range(300)]
    said = StreamLearner(StreamConfig(rate=0.0, replay=0, context=40, width=64)).absorb(rows, targets)
    right = [one.label == y for one, y in zip(said, targets, strict=True)]
    assert sum(right[50:150]) >= 95
    assert sum(right[200:]) >= 95


def test_persistence_by_hand() -> None:
    persistence = Persistence()
    assert persistence.predict_proba_one({}) == {}
    for y in ("a", "a", "b"):
        persistence.learn_one({}, y)
    # Of two repetitions asked for one came; with one right of two added before, that is 2 of 4.
    assert persistence.predict_proba_one({}) == {"b": 0.5, "a": 0.5}


def test_losses_are_those_before_learning() -> None:
    """A rival that knows all it was told gains nothing of it for the pair itself."""

    class Memory:
        def __init__(self) -> None:
            self.held: dict[float, Any] = {}

        def learn_one(self, x: Any, y: Any) -> None:
            self.held[x["a"]] = y

        def predict_one(self, x: Any) -> Any:
            return self.held.get(x["a"])

        def predict_proba_one(self, x: Any) -> dict[Any, float]:
            return {self.held[x["a"]]: 1.0} if x["a"] in self.held else {}

    rows = [{"a": 0.0}, {"a": 1.0}, {"a": 0.0}, {"a": 1.0}]
    ((losses, hits),) = score_rival(Memory(), "classification", rows, ["u", "v", "u", "w"])
    assert losses == pytest.approx([-math.log(1e-3), -math.log(1e-3), 0.0, -math.log(1e-3)])
    assert hits == [False, False, True, False]
