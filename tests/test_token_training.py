"""From a task over tokens to a saved learner that stands beside the classical ones; mixers trained for a comparison."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contexture import api
from contexture.cli import main
from contexture.errors import InputError
from contexture.evaluation.curve import draw, score
from contexture.evaluation.intervals import seed_interval
from contexture.evaluation.metrics import find
from contexture.evaluation.per_seed import PerSeed
from contexture.evaluation.samples import contrast, measure
from contexture.learners.recall import InductionHead, Lookup
from contexture.learners.token_model import InContextTokens
from contexture.learners.unigram import Unigram
from contexture.selection import choose_learners, choose_task
from contexture.tasks.copying import Copying
from contexture.tasks.induction import Induction

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_a_model_over_tokens_is_trained_saved_and_compared(run: Run) -> None:
    settings = ("--set", "vocabulary=16", "--set", "length=16", "--set", "num_pairs=2")
    status, _, err = run(
        "train", "mqar", *settings, "--mixers", "delta-rule", "--run-dir", "run", "--steps", "2",
        "--evaluation-episodes", "32",
    )  # fmt: skip
    assert status == 0, err
    assert "contexture compare mqar --set vocabulary=16 --set length=16 --set num_pairs=2 --learners" in err
    learner = api.load("run/learner")
    assert isinstance(learner, InContextTokens)
    assert learner.model.config.backbone.pattern == ("delta-rule+none", "delta-rule+none")
    status, out, err = run(
        "compare", "mqar", *settings, "--learners", "lookup,run/learner", "--episodes", "32", "--seeds", "1", "--json",
        "--no-report",
    )  # fmt: skip
    assert status == 0, err
    by_name = {one["name"]: one for one in json.loads(out)["learners"]}
    assert set(by_name["lookup"]["value"]) == {0.0}
    assert min(by_name["run/learner"]["value"]) > 0.3
    # two layers, two heads of 32: a memory each, and three earlier inputs of the convolution; the backbone's position
    assert by_name["run/learner"]["state_bytes"] == 2 * (2 * 32 * 32 + 3 * 3 * 64) * 4 + 8
    status, _, err = run("compare", "mqar", "--set", "vocabulary=64", "--learners", "run/learner", "--no-report")
    assert status == 0
    assert "was made for 16 tokens" in run("compare", "mqar", "--learners", "run/learner", "--no-report")[1]


def test_registered_learners_of_tokens_take_the_vocabulary_of_the_task() -> None:
    chosen = choose_learners(Copying(vocabulary=40, num_tokens=6), ["unigram", "lookup"])
    assert chosen == {"unigram": Unigram(vocabulary=40), "lookup": Lookup(vocabulary=40)}


def test_settings_of_a_task_are_its_fields() -> None:
    assert choose_task("induction", settings={"vocabulary": 9}) == Induction(vocabulary=9)
    with pytest.raises(InputError, match="'induction' cannot be built"):
        choose_task("induction", settings={"vocabulry": 9})
    with pytest.raises(InputError, match="is a table, which has no settings"):
        choose_task("diabetes", settings={"vocabulary": 9})


def test_settings_that_cannot_be_read_are_named(run: Run) -> None:
    status, _, err = run("compare", "mqar", "--set", "8", "--no-report")
    assert status == 2
    assert "'8' is no setting: write it as NAME=VALUE" in err


def test_each_seed_is_answered_by_its_own_model() -> None:
    task = Induction(vocabulary=6, length=12)
    source = draw(task, episodes=64, seeds=(0, 1))
    right, wrong = InductionHead(vocabulary=6), Unigram(vocabulary=6)
    metric = find("error-rate")
    samples = score(PerSeed((right, wrong)), source, context=[11], metric=metric)
    assert samples.losses[0].eq(0).all()
    alone = score(wrong, source, context=[11], metric=metric)
    assert torch.allclose(samples.losses[1].mean(), alone.losses[1].mean(), atol=0.05)
    measured, by_hand = measure(samples), seed_interval(samples.losses)
    assert measured.low[0] == max(0.0, float(by_hand.low))
    assert measured.value[0] == pytest.approx(float(samples.losses.mean()))
    apart = contrast(alone, samples)
    assert float(apart.high - apart.low) == pytest.approx(float(_reach(alone.losses - samples.losses)))
    with pytest.raises(InputError, match="1 models for 2 seeds"):
        score(PerSeed((right,)), source, context=[11], metric=metric)


def _reach(differences: torch.Tensor) -> torch.Tensor:
    interval = seed_interval(differences)
    return interval.high - interval.low


FALLS = """
from contexture.mixers.linear_attention import IdentityLinearAttention
from contexture.protocols import MixerCard


class Falls(IdentityLinearAttention):
    card = MixerCard(name="falls", summary="Raises.", state="constant", cost="linear")

    def forward(self, x, *, segments=None):
        raise RuntimeError("the sky is falling")
"""


def test_mixers_are_trained_beside_the_learners_of_a_task(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from contexture.evaluation.trained_mixers import TRAININGS

    monkeypatch.setitem(TRAININGS, "tiny", replace(TRAININGS["tiny"], steps=2))  # type: ignore[arg-type]
    Path("mine.py").write_text(FALLS, encoding="utf-8")
    command = (
        "compare", "linear-regression", "--set", "num_features=3", "--set", "num_points=6", "--learners", "ridge",
        "--mixers", "softmax,mine.py:Falls", "--budget", "tiny", "--seeds", "2", "--episodes", "16", "--no-report",
    )  # fmt: skip
    status, out, err = run(*command)
    assert status == 0, err
    assert "skipped: falls (own) failed: RuntimeError in mine.py, line 10: the sky is falling" in out
    assert "softmax: one model trained for each of 2 seeds" in out
    assert run(*command)[1].splitlines()[:2] == out.splitlines()[:2]
    status, out, _ = run(*command, "--json")
    assert {one["name"]: one["n"] for one in json.loads(out)["learners"]}["softmax"] == 32
    status, _, err = run("train", "sine", "--mixers", "mine.py:Falls", "--run-dir", "falls", "--steps", "2")
    assert status == 2
    assert "training mine.py:Falls failed: RuntimeError in mine.py, line 10: the sky is falling" in err
    assert "Traceback" not in err
    status, _, err = run("compare", "diabetes", "--mixers", "softmax", "--no-report")
    assert status == 2
    assert "'diabetes' is none" in err


def test_mixers_are_listed_by_year_and_mechanism(run: Run) -> None:
    status, out, _ = run("list", "mixers")
    assert status == 0
    assert out.split()[:6] == ["year", "mechanism", "paper", "causal", "state", "cost"]
    years = [row["year"] for row in json.loads(run("list", "mixers", "--json")[1]) if row["year"]]
    assert years == sorted(years)
