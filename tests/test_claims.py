"""Claims from the harness to the command: records, resuming, publishing, figures, exit statuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from contexture.claims.folder import ClaimFolder
from contexture.claims.harness import Result, measure, total_seconds
from contexture.claims.models import ModelCache
from contexture.claims.protocol import Curve, Samples
from contexture.claims.publish import publish, published
from contexture.claims.run import Run
from contexture.cli import main
from contexture.discovery import find_paper, papers
from contexture.errors import InputError
from contexture.models.self_attention import SelfAttentionConfig
from contexture.reports.claim_figures import figure, png, svg
from contexture.store.results import read_result
from contexture.training.config import TaskChoice, TrainingConfig

Call = Callable[..., tuple[int, str, str]]

OWN = """
import torch
from contexture.claims.protocol import Axes, OneSeed, Paper, claim, over_seeds

PAPER = Paper(key="own", title="A paper of one's own", authors="You", year=2026)
CALLS = []


def draws(run, centre, name):
    def one(seed):
        values = centre + 0.1 * torch.rand(20, generator=run.generator(seed, "toy"))
        curves = {name: ((1, 2), torch.tensor([1.0, centre + 1]))}
        return OneSeed(values=values, errors=values, zero_errors=values + 1, curves=curves)
    return over_seeds(run, one)


@claim("uniform draws stay small", threshold=LIMIT, direction="below", why="they end at 0.1", axes=Axes(x="n", y="u"))
def small(run):
    CALLS.append(run.setting("episodes", smoke=20, cpu=40))
    return draws(run, 0.0, "draws")


@small.reference("the same draws once more")
def same(run):
    return draws(run, 0.0, "the same")


@small.control("draws moved up by one")
def moved(run):
    return draws(run, 1.0, "moved")
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")  # a narrow table breaks sentences over lines
    Path("own.py").write_text(OWN.replace("LIMIT", "0.5"), encoding="utf-8")
    Path("wrong.py").write_text(OWN.replace("LIMIT", "0.01"), encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as left:
            status = int(left.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_claim_is_measured_drawn_and_kept(call: Call) -> None:
    status, out, err = call("claim", "own.py", "--run-dir", "runs", "--report", "report.html")
    assert status == 0
    assert "uniform draws stay small" in out
    assert "small at smoke scale: held" in err
    assert Path("runs/figures/own/small.smoke.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert Path("runs/figures/own/small.smoke.png").read_bytes().startswith(b"\x89PNG")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "draws moved up by one" in page
    assert "<svg" in page


def test_json_is_one_document_with_what_the_record_promises(call: Call) -> None:
    status, out, _ = call("claim", "own.py", "--run-dir", "runs", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["paper"] == "own"
    (found,) = document["claims"]
    promised = {"sentence", "scale", "value", "low", "high", "threshold", "direction", "verdict", "seeds", "seconds"}
    assert promised <= found.keys()
    assert found["verdict"] == "held"
    assert found["low"] <= found["value"] <= found["high"] < found["threshold"] == 0.5
    assert {"sentence", "value", "verdict"} <= found["control"].keys()
    assert found["settings"] == {"episodes": 20}


def test_a_surprise_is_exit_status_1(call: Call) -> None:
    status, _, err = call("claim", "wrong.py", "--run-dir", "runs")
    assert status == 1
    assert "not as expected: own: small" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["claim"], "name one paper"),
        (["claim", "own.py", "--all"], "name one paper"),
        (["claim", "no-such-paper"], "no paper has the key"),
        (["claim", "missing.py"], "does not name a file"),
        (["claim", "own.py", "--seeds", "2"], "at least 3"),
        (["claim", "own.py", "--only", "tall"], "has no claim 'tall'"),
        (["claim", "own.py", "--scale", "huge"], "invalid choice"),
        (["claim", "--page", "missing.md"], "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_status_2(call: Call, arguments: list[str], said: str) -> None:
    status, _, err = call(*arguments)
    assert status == 2
    assert said in err
    assert "Traceback" not in err


def test_papers_are_listed_with_their_claims(call: Call) -> None:
    status, out, _ = call("list", "papers", "--json")
    listed = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert listed.keys() == papers().keys()
    assert listed["icl-by-gd"]["claims"] == len(papers()["icl-by-gd"].claims) > 5


def test_your_own_paper_is_held_to_the_laws(call: Call) -> None:
    status, out, _ = call("check", "papers", "own.py")
    assert (status, out.strip()) == (0, "own.py keeps the laws of papers")
    status, _, err = call("check", "papers", "wrong.py")
    assert status == 1
    assert "law of claims" in err


def test_a_model_of_attention_survives_its_configuration() -> None:
    config = TrainingConfig(
        task=TaskChoice(name="sine"), model=SelfAttentionConfig(num_features=1, embed=(4, 3), writes="targets"), steps=2
    )
    assert TrainingConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_what_stands_is_not_measured_again(call: Call) -> None:
    paper, folder = find_paper("own.py"), ClaimFolder(Path("runs"))
    (claim,) = paper.claims
    run, other = Run(), Run(seeds=(0, 1, 2, 3))
    assert folder.standing(paper, claim, run) is None
    first = folder.measure(paper, claim, run)
    assert folder.standing(paper, claim, run) == first
    assert folder.standing(paper, claim, other) is None
    path = folder.result_path(paper, "small", "smoke")
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert folder.standing(paper, claim, run) is None


def test_publishing_replaces_what_was_measured_and_keeps_the_rest(call: Call) -> None:
    paper = find_paper("own.py")
    (claim,) = paper.claims
    result = measure(claim, Run())
    path = publish(paper, [result], Path("results"), command="contexture claim own.py")
    document = read_result(path)
    assert document["claims"][0]["measured_by"]["command"] == "contexture claim own.py"
    assert document["claims"][0]["measured_by"]["environment"]["torch"] == torch.__version__
    assert published(paper, Path("results")) == [result]
    publish(paper, [], Path("results"), command="nothing")
    assert published(paper, Path("results")) == [result]


def test_models_that_claims_share_are_counted_once() -> None:
    one = measure(papers()["looped-multi-gd"].claim("geometric"), Run())
    first, second = (replace_seconds(one, seconds) for seconds in (5.0, 6.0))
    assert total_seconds([first, second]) == 5.0 + 6.0 - 4.0


def replace_seconds(result: Result, seconds: float) -> Result:
    return Result.from_json({**result.to_json(), "seconds": seconds, "models": {"shared": 4.0}})


def test_a_result_survives_json() -> None:
    result = measure(papers()["icl-by-gd"].claim("copying"), Run())
    assert Result.from_json(json.loads(json.dumps(result.to_json()))).verdict == result.verdict


def test_the_same_record_gives_the_same_picture() -> None:
    for name in ("construction", "copying"):
        result = measure(papers()["icl-by-gd"].claim(name), Run())
        assert svg(result) == svg(result)
        assert png(result).startswith(b"\x89PNG")


def test_no_name_stands_on_a_line() -> None:
    results = Path(__file__).parent.parent / "results"
    drawn = figure(published(papers()["hybrid-analysis"], results)[0])
    (axes,) = drawn.axes
    legend = axes.get_legend()
    assert legend is not None
    names, plot, words = legend.get_window_extent(), axes.get_window_extent(), drawn.texts[0].get_window_extent()
    assert plot.y1 <= names.y0
    assert names.y1 <= words.y0
    assert names.x1 <= plot.x1
    assert words.y1 <= drawn.bbox.y1


def test_a_cache_trains_a_model_once(tmp_path: Path) -> None:
    configs = [
        TrainingConfig(
            task=TaskChoice(name="linear-regression", settings={"num_features": 2, "num_points": 4}),
            model=SelfAttentionConfig(num_features=2),
            steps=3,
            seed=seed,
        )
        for seed in range(3)
    ]
    cache = ModelCache(tmp_path)
    first = cache.train(configs)
    record = next(tmp_path.glob("*/record.jsonl")).read_bytes()
    again = ModelCache(tmp_path).train(configs)
    assert next(tmp_path.glob("*/record.jsonl")).read_bytes() == record
    alone = ModelCache().train(configs[:1])
    for name, value in first[0].named_parameters():
        assert torch.equal(dict(again[0].named_parameters())[name], value)
        torch.testing.assert_close(dict(alone[0].named_parameters())[name], value)
    assert not torch.equal(next(first[0].parameters()), next(first[1].parameters()))
    assert next(iter(cache.used.values())) > 0


def test_a_cache_keeps_tensors(tmp_path: Path) -> None:
    calls = []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"w": torch.arange(3.0)}

    for _ in range(2):
        found = ModelCache(tmp_path).kept({"purpose": "test"}, make)
        assert torch.equal(found["w"], torch.arange(3.0))
    assert calls == [1]


def test_runs_have_at_least_three_seeds_and_a_known_scale() -> None:
    with pytest.raises(InputError, match="at least 3"):
        Run(seeds=(0, 1, 1))
    with pytest.raises(InputError, match="no scale"):
        Run(scale="tiny")  # type: ignore[arg-type]
    run = Run(scale="long")
    assert run.setting("a", smoke=1, cpu=2) == 2
    assert run.setting("b", smoke=1, cpu=2, long=3) == 3
    assert run.settings == {"a": 2, "b": 3}


def test_samples_say_what_is_amiss() -> None:
    with pytest.raises(InputError, match=r"\[seeds, episodes\]"):
        Samples(values=torch.ones(3))
    with pytest.raises(InputError, match="not a finite number"):
        Samples(values=torch.tensor([[torch.nan]]))
    with pytest.raises(InputError, match="paired"):
        Samples(values=torch.ones(3, 2), per=torch.ones(3, 1))
    with pytest.raises(InputError, match="give both"):
        Samples(values=torch.ones(3, 2), errors=torch.ones(3, 2))
    with pytest.raises(InputError, match="a curve over 2 points"):
        Curve(x=(1.0, 2.0), y=torch.ones(3, 1))


def test_the_page_holds_what_is_published() -> None:
    from contexture.commands.claims_page import page_files

    root = Path(__file__).resolve().parent.parent
    stale = [
        path.name
        for path, text in page_files(root / "docs" / "claims.md", root / "results").items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run: contexture claim --page docs/claims.md"


@pytest.mark.parametrize("key", papers())
def test_what_is_published_was_measured_against_what_the_paper_says_now(key: str) -> None:
    paper = papers()[key]
    held = published(paper, Path(__file__).resolve().parent.parent / "results")
    for result in held:
        claim = paper.claim(result.name)
        assert (result.sentence, result.threshold, result.direction) == (
            claim.sentence,
            claim.threshold,
            claim.direction,
        )
        assert claim.ideal is not None
        assert claim.foil is not None
        assert (result.reference.sentence, result.control.sentence) == (claim.ideal.sentence, claim.foil.sentence)
    assert {result.name for result in held} == {claim.name for claim in paper.claims}
