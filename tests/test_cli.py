"""The command line as its users meet it: what goes where, exit statuses, and bad input in one sentence."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from contexture.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as left:
            status = int(left.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def houses(tmp_path: Path) -> Path:
    """Sixty rows: price = 3 size + an offset for the town, some sizes missing."""
    draw = random.Random(0)
    offsets = {"north": 0.0, "south": 20.0, "west": 50.0}
    path = tmp_path / "houses.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "town", "price"])
        for _ in range(60):
            size, town = draw.uniform(10, 50), draw.choice(sorted(offsets))
            price = 3 * size + offsets[town] + draw.gauss(0, 1)
            writer.writerow(["" if draw.random() < 0.1 else f"{size:.2f}", town, f"{price:.2f}"])
    return path


def one_sentence(error: str) -> str:
    last = error.strip().splitlines()[-1]
    assert last.startswith("contexture")
    assert "Traceback" not in error
    return last


def test_help_puts_examples_first(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    assert out.index("contexture compare diabetes") < out.index("positional arguments")


def test_a_comparison_prints_a_table_and_writes_a_report(run: Run, houses: Path) -> None:
    status, out, err = run("compare", str(houses), "--target", "price", "--learners", "mean,ridge,knn", "--seeds", "1")
    assert status == 0
    assert [name in out for name in ("mean", "ridge", "knn")] == [True] * 3
    assert "60 rows, 2 features: 1 numeric and 1 categorical" in err
    report = Path(err.strip().splitlines()[-1].removeprefix("report: "))
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_is_one_document_of_the_stated_form(run: Run, houses: Path) -> None:
    status, out, _ = run(
        "compare", str(houses), "--target=-1", "--learners=mean,ridge", "--context=10,25", "--seeds=1", "--json",
        "--no-report", "--figure=curve.svg",
    )  # fmt: skip
    assert status == 0
    assert "<svg" in Path("curve.svg").read_text(encoding="utf-8")
    document = json.loads(out)
    assert list(document) == ["schema", "task", "metric", "lower_is_better", "context", "interval", "learners"]
    assert document["context"] == [10, 25]
    keys = {"name", "kind", "value", "low", "high", "n", "seconds", "parameters", "state_bytes"}
    assert [set(learner) for learner in document["learners"]] == [keys, keys]
    by_name = {learner["name"]: learner for learner in document["learners"]}
    assert by_name["ridge"]["value"][1] < 0.5 < by_name["mean"]["value"][1]
    assert not Path("contexture-reports").exists()


def test_sizes_that_do_not_fit_are_named_or_refused_if_asked_for(run: Run, houses: Path) -> None:
    common = ("compare", str(houses), "--target", "price", "--learners", "mean", "--seeds", "1", "--no-report")
    status, out, _ = run(*common)
    assert status == 0
    assert "left out: 50 examples (the training half holds 30)" in out
    status, _, err = run(*common, "--context", "10,50")
    assert status == 2
    assert "50: the training half holds 30" in one_sentence(err)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("compare", "no-such-task"), "no task and no file is named 'no-such-task'"),
        (("compare", "diabets"), "did you mean diabetes"),
        (("compare", "missing.csv", "--target", "y"), "there is no file missing.csv"),
        (("compare", "diabetes", "--learners", "rigde"), "did you mean ridge?"),
        (("compare", "diabetes", "--learners", "ridge,ridge"), "asked for twice"),
        (("compare", "diabetes", "--target", "price"), "not a file"),
        (("compare", "diabetes", "--metric", "log-loss", "--learners", "mean"), "log-loss does not score a regression"),
        (("compare", "sine", "--learners", "transformer"), "no trained transformer ships for 'sine'"),
        (("compare", "diabetes", "--learners", "in-context"), "no weights: ask for 'transformer'"),
        (("predict", "a.csv", "b.csv", "--target", "y"), "there is no file a.csv"),
        (("predict", "a.csv", "b.csv", "--target", "y", "-o", "no/where.csv"), "there is no folder no"),
        (("compare", "diabetes", "--context", "ten"), "list of whole numbers"),
        (("compare", "diabetes", "--seeds", "0"), "not a positive whole number"),
        (("compare", "diabetes", "--figure", "curve.png"), "figures are written as SVG"),
        (("predict", "a.csv", "b.csv", "--level", "1.5"), "not between 0 and 1"),
        (("check", "mixers", "mine.py:Missing"), "does not name a file"),
        (("compare", "sine", "--mixers", "softmax", "--budget", "standard"), "there are tiny, small, full"),
        (("compare", "sine", "--mixers", "softmax", "--match", "state"), "--match belongs to the recall ladder"),
        (("compare", "sine", "--match", "state"), "--match cannot be used without mixers"),
        (("compare", "sine", "--mixers", "galerkin"), "sees whole sets"),
        (("compare", "recall", "--mixers", "softmax", "--agents", "ucb"), "--agents cannot be used with the recall"),
        (("compare", "recall", "--mixers", "softmax", "--markdown", "no/where.md"), "no folder no for where.md"),
        (("train",), "say what to train"),
        (("train", "linear-regression"), "say where the run is kept"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert sentence in one_sentence(err)
    assert list(Path().glob("**/*.html")) == []


def test_predictions_come_a_row_for_each_row(run: Run, houses: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("town,size,extra\nnorth,20,1\nwest,20,2\nmoon,20,3\n", encoding="utf-8")
    arguments = ("predict", str(houses), str(new), "--target", "price", "--learner", "gaussian-process")
    status, out, err = run(*arguments, "-o", "out.csv")
    assert (status, out) == (0, "")
    assert "columns passed over, which training did not have: 'extra'" in err
    assert "'moon'" in err
    rows = list(csv.DictReader(Path("out.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["price", "price_low", "price_high"]
    assert float(rows[0]["price"]) == pytest.approx(60, abs=10)
    assert float(rows[1]["price"]) == pytest.approx(110, abs=10)
    assert all(float(row["price_low"]) < float(row["price"]) < float(row["price_high"]) for row in rows)
    assert len(run(*arguments)[1].splitlines()) == 4


def test_predictions_of_a_class_come_with_probabilities(run: Run, houses: Path) -> None:
    status, out, _ = run("predict", str(houses), str(houses), "--target", "town", "--learner", "random-forest")
    assert status == 0
    row = next(csv.DictReader(out.splitlines()))
    assert list(row) == ["town", "town=north", "town=south", "town=west"]
    assert sum(float(row[name]) for name in list(row)[1:]) == pytest.approx(1)


def test_an_input_is_never_overwritten(run: Run, houses: Path) -> None:
    before = houses.read_bytes()
    status, _, err = run("predict", str(houses), str(houses), "--target", "price", "-o", str(houses))
    assert status == 2
    assert "would be overwritten" in one_sentence(err)
    assert houses.read_bytes() == before


@pytest.mark.parametrize(
    ("room", "name"), [("tasks", "wine"), ("learners", "ols"), ("mixers", "softmax"), ("metrics", "log-loss")]
)
def test_lists_name_what_there_is(run: Run, room: str, name: str) -> None:
    status, out, _ = run("list", room, "--json")
    assert status == 0
    assert name in {row["name"] for row in json.loads(out)}
    assert name in run("list", room)[1]


MIXER = '''
import torch
from contexture.leaves.linear import Linear
from contexture.protocols import MixerCard

class Peek(torch.nn.Module):
    """Adds the next token: not causal."""
    card = MixerCard(name="peek", summary="Looks ahead.", state="constant", cost="linear")

    def __init__(self, width, *, num_heads, generator):
        super().__init__()
        self.out = Linear(width, width, generator=generator)

    def init_state(self, batch, *, device, dtype):
        return ()

    def stream(self, x, state):
        return self.out(x), state

    def forward(self, x, *, segments=None):
        return self.out(x + torch.roll(x, -1, 1))
'''


def test_a_list_of_mixers_fits_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("list", "mixers")[1].splitlines()
    assert max(map(len, lines)) <= 80
    (delta,) = [line.split() for line in lines if " delta-rule " in line]
    assert delta == ["2024", "delta-rule", "arXiv:2406.06484", "yes", "constant", "linear"]


def test_a_broken_law_is_named_with_status_1(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MIXER, encoding="utf-8")
    status, _, err = run("check", "mixers", f"{mine}:Peek")
    assert status == 1
    assert "breaks the law of causality: the output before 1, where the input changes from 1 on" in err
    assert "(first at position 0, 0, 0)" in err


@pytest.mark.parametrize(
    ("old", "new", "status", "said"),
    [
        (
            "return self.out(x), state",
            "return self.inn(x), state",
            1,
            "AttributeError in mine.py, line 18: 'Peek' object",
        ),
        ("*, num_heads, generator", "", 1, "breaks the law of interface: TypeError: Peek.__init__() got an unexpected"),
        ("def stream", "def steam", 1, "breaks the law of interface: Peek has no method stream"),
        ("constant", "const", 2, "mine.py could not be imported: the card of 'peek' has state='const'"),
        ("import torch", "import torch, helper", 1, "breaks the law of causality"),
        ("import torch", "import torch, no_helper", 2, "ModuleNotFoundError in mine.py, line 2: No module named"),
        ("import torch", "raise SystemExit(0)", 2, "mine.py could not be imported: SystemExit in mine.py, line 2: 0"),
        ("class Peek(", "class Peek[", 2, "mine.py could not be imported: SyntaxError: "),
    ],
)
def test_whatever_is_wrong_with_a_mixer_is_one_sentence(
    run: Run, tmp_path: Path, old: str, new: str, status: int, said: str
) -> None:
    mine = tmp_path / "own" / "mine.py"
    mine.parent.mkdir()
    mine.write_text(MIXER.replace(old, new), encoding="utf-8")
    (mine.parent / "helper.py").touch()
    got, out, err = run("check", "mixers", f"{mine}:Peek")
    assert (got, out) == (status, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_file_needs_a_class(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MIXER, encoding="utf-8")
    status, _, err = run("check", "mixers", str(tmp_path / "mine.py"))
    assert status == 2
    assert "mine.py:MyClass" in one_sentence(err)


def test_training_resumes_and_its_learner_can_be_compared(run: Run) -> None:
    settings = ("--model.backbone.pattern", "softmax*1", "--batch", "64", "--evaluation-episodes", "64")
    status, _, err = run("train", "linear-regression", "--run-dir", "run", "--steps", "2", *settings)
    assert status == 0, err
    assert run("train", "linear-regression", "--run-dir", "run", "--steps", "2", *settings)[0] == 2
    assert run("train", "linear-regression", "--run-dir", "run", "--steps", "2", "--resume", *settings)[0] == 0
    status, out, err = run(
        "compare", "linear-regression", "--learners", "ols,run/learner", "--episodes", "8", "--context", "4,20",
        "--no-report",
    )  # fmt: skip
    assert status == 0, err
    assert "run/learner" in out


def test_a_damaged_learner_is_refused_with_status_3(run: Run) -> None:
    folder = Path("broken")
    folder.mkdir()
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    status, _, err = run("compare", "linear-regression", "--learners", "broken")
    assert status == 3
    assert "broken" in one_sentence(err)


def test_doctor_knows_the_environment(run: Run) -> None:
    status, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["packages"]["torch"]
    assert {"environment", "paths", "weights"} <= set(found)


def test_completion_is_printed(run: Run) -> None:
    status, out, _ = run("completion", "bash")
    assert status == 0
    assert "compare" in out
