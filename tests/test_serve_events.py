import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from contexture.claims.models import ModelCache
from contexture.cli import main
from contexture.commands.claim_events import Events
from contexture.models.backbone import BackboneConfig
from contexture.models.pairs import PairsModelConfig
from contexture.training.config import TaskChoice, TrainingConfig


def paper() -> Any:
    return SimpleNamespace(claim=lambda name: SimpleNamespace(sentence=f"{name} is so."))


def result(name: str) -> Any:
    return SimpleNamespace(name=name, to_json=lambda: {"name": name})


def test_claims_are_told_as_they_begin_and_when_they_are_measured() -> None:
    stream = io.StringIO()
    events = Events(paper(), num_claims=2, figure=lambda result: f"<svg {result.name}>", stream=stream)
    events({}, "a")
    events({"a": result("a")}, "b")
    events({"a": result("a"), "b": result("b")}, "")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "measuring", "claim": "a", "sentence": "a is so.", "done": 0, "of": 2},
        {"event": "measured", "claim": {"name": "a"}, "figure": "<svg a>"},
        {"event": "measuring", "claim": "b", "sentence": "b is so.", "done": 1, "of": 2},
        {"event": "measured", "claim": {"name": "b"}, "figure": "<svg b>"},
    ]


def test_steps_are_told_now_and_then_and_the_last_one_always() -> None:
    stream = io.StringIO()
    events = Events(paper(), num_claims=1, figure=lambda result: "", stream=stream, every=1e6)
    events.start(steps=100, done=0)
    for step in range(1, 101):
        events.advance(step, 2.0)
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert told[0] == {"event": "training", "step": 0, "steps": 100}
    assert told[-1] == {"event": "step", "step": 100, "steps": 100, "loss": 2.0}
    assert len(told) <= 3


def test_a_run_ends_with_its_input(tmp_path: Path) -> None:
    code = (
        "import sys, time; from contexture.commands.claim_events import end_with_input\n"
        "end_with_input(); print('up', flush=True)\n"
        "while True: time.sleep(0.01)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(10) != 0


def test_what_ignores_the_interruption_ends_after_the_grace() -> None:
    code = (
        "import sys, time; from contexture.commands.claim_events import end_with_input\n"
        "import signal; signal.signal(signal.SIGINT, lambda *a: None)\n"
        "end_with_input(grace=0.1)\n"
        "while True: time.sleep(0.01)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=30).returncode == 130


def test_events_are_of_one_paper(capsys: Any) -> None:
    assert main(["claim", "--all", "--events"]) == 2
    assert "--events" in capsys.readouterr().err


def test_a_model_that_claims_train_tells_its_steps(tmp_path: Path) -> None:
    stream = io.StringIO()
    events = Events(paper(), num_claims=1, figure=lambda result: "", stream=stream, every=0.0)
    model = PairsModelConfig(num_features=8, backbone=BackboneConfig(pattern="softmax", width=8, num_heads=2))
    config = TrainingConfig(task=TaskChoice(name="linear-regression"), model=model, steps=3, evaluation_episodes=64)
    models = ModelCache(tmp_path, progress=events)
    models.train([config])
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["step"], line["steps"]) for line in told] == [
        ("training", 0, 3), ("step", 1, 3), ("step", 2, 3), ("step", 3, 3),
    ]  # fmt: skip
    assert all(line["loss"] > 0 for line in told[1:])
    models.train([config])
    assert len(stream.getvalue().splitlines()) == len(told)
