"""`contexture papers` and `contexture site` as they are typed."""

import csv
import io
import json
from pathlib import Path

import pytest

from contexture.cli import main
from contexture.reports.claims import interval
from contexture.reports.numbers import number

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ["--results", str(ROOT / "results")]


def test_papers_are_searched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["papers", "search", "gradient", "descent in-context", "--status", "measured", *RESULTS]) == 0
    printed = capsys.readouterr()
    assert "icl-by-gd" in printed.out
    assert "planned" not in printed.out
    assert printed.err == ""


def test_a_search_may_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["papers", "search", "--task", "mqar", "--year", "2024,2025", "--sort", "title", "--json", *RESULTS]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert len(found) > 2
    assert all("mqar" in paper["tasks"] and paper["year"] in (2024, 2025) for paper in found)
    titles = [paper["title"].casefold() for paper in found]
    assert titles == sorted(titles)


def test_a_search_that_finds_nothing_says_so_and_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["papers", "search", "zzzz", *RESULTS]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "no paper has all of this: fewer words, or one option less, will find more\n"


def test_a_paper_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["papers", "show", "one-step-gd", *RESULTS]) == 0
    out = capsys.readouterr().out
    assert "Arvind Mahankali, Tatsunori B. Hashimoto, Tengyu Ma; 2023; arXiv:2307.03576; measured" in out
    claim = json.loads((ROOT / "results" / "one-step-gd.json").read_text(encoding="utf-8"))["claims"][0]
    measured = interval(claim["value"], claim["low"], claim["high"])
    assert f"{claim['verdict']}: {measured}, wanted < {number(claim['threshold'])}" in out
    assert out.endswith(f"measure: contexture claim one-step-gd --scale {claim['scale']}\n")


def test_papers_are_exported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["papers", "export", "--format", "csv", *RESULTS]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert main(["papers", "export", *RESULTS]) == 0
    papers = json.loads(capsys.readouterr().out)
    assert [row["key"] for row in rows] == [paper["key"] for paper in papers]
    assert main(["papers", "export", "--format", "bibtex", *RESULTS]) == 0
    assert capsys.readouterr().out.count("@misc{") == len(papers)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["papers", "search", "--status", "done"], "there is no status 'done': there are measured, built, planned"),
        (["papers", "search", "--family", "MIX"], "there is no family 'MIX': there are in-context-learning, mixers"),
        (["papers", "search", "--sort", "random"], "there is no order 'random': there are newest, title"),
        (["papers", "show", "icl-by-g"], "no paper has the key 'icl-by-g': did you mean icl-by-gd"),
        (["papers", "export", "--results", "none-such"], "the folder of results none-such does not exist"),
        (["site", "build", "new", "--results", "none-such"], "the folder of results none-such does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"contexture: {said}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["papers"], ["papers", "find"], ["site"], ["papers", "export", "--format", "xml"]]
)
def test_what_cannot_be_read_is_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "--help" in capsys.readouterr().err


def test_a_site_is_not_built_over_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert main(["site", "build", str(tmp_path), *RESULTS]) == 2
    assert "holds something that is not a site of this program" in capsys.readouterr().err
