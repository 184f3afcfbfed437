"""The recall ladder: sizes that match, cells that are kept, mixers that fail by name, what is printed and drawn."""

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from contexture import api
from contexture.cli import main
from contexture.commands.own_mixers import refuse_the_future
from contexture.errors import InputError
from contexture.evaluation.ladder.budget import BUDGETS, Budget, choose_budget, choose_matches
from contexture.evaluation.ladder.cells import Cell, Entrant, entrant, entrants, read_cell
from contexture.evaluation.ladder.climb import climb
from contexture.evaluation.ladder.ladder import Ladder, Placing
from contexture.evaluation.ladder.rungs import RUNGS, choose_rungs
from contexture.evaluation.ladder.sizes import matched, measure, model_config, wanted_parameters
from contexture.evaluation.ladder.train_cell import run_cell
from contexture.models.tokens import TokenModel
from contexture.protocols import MixerCard
from contexture.randomness import generator
from contexture.reports.ladder_html import render_ladder
from contexture.reports.ladder_markdown import accuracy_by_rung
from contexture.reports.ladder_terminal import accuracy, print_ladder
from contexture.training.interrupts import Interrupted

TINY = replace(BUDGETS["tiny"], steps=3, num_evaluated=64, seconds=0.05)
OWN = """
from contexture.mixers.linear_attention import IdentityLinearAttention
from contexture.protocols import MixerCard


class Falls(IdentityLinearAttention):
    card = MixerCard(name="falls", summary="Raises.", state="constant", cost="linear")

    def forward(self, x, *, segments=None):
        raise RuntimeError("the sky is falling")


class Explodes(IdentityLinearAttention):
    card = MixerCard(name="explodes", summary="Gives no numbers.", state="constant", cost="linear")

    def forward(self, x, *, segments=None):
        return super().forward(x, segments=segments) * float("nan")


class Dies(IdentityLinearAttention):
    card = MixerCard(name="dies", summary="Ends its process.", state="constant", cost="linear")

    def forward(self, x, *, segments=None):
        import os

        os._exit(7)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return path


def cell(mixer: str, rung: str = "mqar-4", match: str = "parameters", budget: Budget = TINY) -> Cell:
    return Cell(entrant=entrant(mixer), rung=RUNGS[rung], match=match, budget=budget)


def test_a_model_of_the_ladder_has_the_parameters_that_a_hand_counts() -> None:
    rung, width = RUNGS["mqar-4"], 16
    size = measure(model_config("softmax", rung, TINY, width=width))
    embedding = 32 * width + 32 * width  # tokens and positions, of which there are 32 each
    layers = 2 * (2 * width + 3 * width * width + width * width)  # a norm; queries, keys and values; output
    assert size.parameters == embedding + layers + 2 * width + 32 * width
    # each of two layers keeps a key and a value for 32 tokens, and a position; the backbone keeps one more position
    assert size.state_bytes == 2 * (2 * 32 * width * 4 + 8) + 8


@pytest.mark.parametrize("mixer", ["softmax", "delta-rule", "linear-attention", "linear-attention-identity"])
def test_matched_models_are_as_large_as_asked_when_built_anew(mixer: str) -> None:
    rung, budget = RUNGS["mqar-4"], BUDGETS["small"]
    size = matched(mixer, rung, budget, "parameters")
    model = TokenModel(model_config(mixer, rung, budget, width=size.width), generator=generator("again"))
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == size.parameters
    assert counted == pytest.approx(wanted_parameters(rung.name, budget), rel=0.2)
    size = matched(mixer, rung, budget, "state")
    assert size.state_bytes == pytest.approx(budget.state_bytes, rel=0.2)


def test_the_nearest_width_is_the_nearest_of_all() -> None:
    rung, budget = RUNGS["mqar-4"], BUDGETS["small"]
    size = matched("delta-rule", rung, budget, "state")
    everywhere = [measure(model_config("delta-rule", rung, budget, width=w)).state_bytes for w in range(4, 257, 4)]
    nearest = min(everywhere, key=lambda held: abs(math.log(held / budget.state_bytes)))
    assert size.state_bytes == nearest


def test_a_state_that_no_width_reaches_is_a_result_with_its_reason() -> None:
    result = run_cell(cell("linear-attention", match="state", budget=replace(TINY, state_bytes=10)))
    assert result["status"] == "unmatched"
    assert "bytes of state rather than 10" in result["reason"]


def test_a_cell_reports_other_seeds_than_it_chose_its_rate_on() -> None:
    budget = replace(TINY, rates=(0.01, 0.03), adamw_rates=(0.002,))
    result = run_cell(cell("softmax", budget=budget))
    assert result["status"] == "done"
    assert set(result["validation"]) == {"muon 0.01", "muon 0.03", "adamw 0.002"}
    best = max(budget.candidates, key=lambda candidate: result["validation"][str(candidate)])
    assert (result["optimiser"], result["rate"]) == best
    assert len(result["seeds"]) == 2
    assert result["accuracy"] == pytest.approx(sum(result["seeds"]) / 2)
    assert result["low"] <= result["accuracy"] <= result["high"]
    assert result["steps"] == 3


def test_the_same_cell_gives_the_same_accuracies_and_a_cohort_those_of_single_models() -> None:
    first, second = (run_cell(cell("softmax")) for _ in range(2))
    assert first["seeds"] == second["seeds"]
    waived = entrant("softmax")
    alone = replace(waived, card=replace(waived.card, waivers={"cohorts": "for the sake of this test"}))
    apart = run_cell(replace(cell("softmax"), entrant=alone))
    assert apart["seeds"] == pytest.approx(first["seeds"], abs=0.02)


def test_equal_time_gives_steps_by_the_clock() -> None:
    short, long = (
        run_cell(cell("softmax", match="seconds", budget=replace(TINY, seconds=seconds))) for seconds in (0.0, 0.6)
    )
    assert short["steps"] == 5
    assert long["steps"] > 5


def test_failing_mixers_are_results_by_name_and_stop_nobody(own: Path, tmp_path: Path) -> None:
    names = [f"{own}:Falls", f"{own}:Explodes", "softmax"]
    ladder = climb(
        [entrant(name) for name in names],
        choose_rungs(["mqar-4"]),
        TINY,
        matches=["parameters"],
        run_dir=tmp_path / "r",
    )
    status = {placing.mixer: (placing.status, placing.reason) for placing in ladder.placings}
    assert status["falls (own)"] == ("failed", "RuntimeError in own.py, line 10: the sky is falling")
    assert status["explodes (own)"] == ("failed", "the loss was no number any more at every learning rate")
    assert status["softmax"][0] == "done"
    assert [one.entrant.label for one in ladder.standings("parameters")] == ["softmax"]
    printed = Console(width=200, record=True, file=io.StringIO())
    print_ladder(ladder, printed)
    text = printed.export_text()
    assert "failed: falls (own) on mqar-4 (parameters): RuntimeError in own.py, line 10: the sky is falling" in text
    assert "the sky is falling" in render_ladder(ladder)


def test_mixers_whose_cards_share_a_name_are_told_apart(own: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(OWN, encoding="utf-8")
    found = entrants([f"{own}:Falls", f"{other}:Falls", f"{own}:Dies"])
    assert [one.label for one in found] == [f"{own}:Falls", f"{other}:Falls", "dies (own)"]


def test_a_mixer_that_sees_the_future_is_not_trained(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leak = "        return super().forward(x.roll(-1, 1), segments=segments)"
    own.write_text(OWN.replace('        raise RuntimeError("the sky is falling")', leak), encoding="utf-8")
    for task in ("recall", "linear-regression"):
        where = ["--budget", "tiny", "--run-dir", str(tmp_path / task), "--no-report"]
        assert main(["compare", task, "--mixers", f"softmax,{own}:Falls", *where]) == 2
        said = capsys.readouterr().err
        assert "own.py:Falls breaks the law of causality: the output before 1" in said
        assert "(first at position 0, 0, 0); trained, it would be measured by what it leaks" in said
        assert not (tmp_path / task).exists()
    refuse_the_future([f"{own}:Explodes", "softmax"])


def test_a_process_that_dies_fails_its_cell_alone(own: Path, tmp_path: Path) -> None:
    names = [f"{own}:Dies", "softmax"]
    ladder = climb(
        [entrant(name) for name in names],
        choose_rungs(["induction"]),
        TINY,
        matches=["parameters"],
        run_dir=tmp_path / "r",
        num_workers=1,
    )
    assert [placing.status for placing in ladder.placings] == ["failed", "done"]
    assert ladder.placings[0].reason == "the process that trained it ended with status 7"


def test_what_is_kept_is_not_trained_again_and_a_changed_mixer_is(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    from contexture.evaluation.ladder import train_cell

    def counted(one: Cell) -> dict[str, Any]:
        trained.append(one.entrant.label)
        return {"status": "unmatched", "reason": "not really trained"}

    monkeypatch.setattr(train_cell, "run_cell", counted)

    def again() -> Ladder:
        return climb(
            [entrant("softmax"), entrant(f"{own}:Falls")],
            choose_rungs(["induction"]),
            TINY,
            matches=["parameters"],
            run_dir=tmp_path / "r",
        )

    again()
    again()
    assert trained == ["softmax", "falls (own)"]
    own.write_text(OWN + "\n# changed\n", encoding="utf-8")
    again()
    assert trained == ["softmax", "falls (own)", "falls (own)"]
    path = tmp_path / "r" / cell("softmax", "induction").file_name
    path.write_text(path.read_text(encoding="utf-8")[:40], encoding="utf-8")
    assert read_cell(tmp_path / "r", cell("softmax", "induction")) is None
    again()
    assert trained[-1] == "softmax"


def test_what_a_users_file_imports_beside_it_counts_as_its_source(own: Path, tmp_path: Path) -> None:
    helper, package = tmp_path / "beside.py", tmp_path / "apart"
    package.mkdir()
    (package / "__init__.py").write_text("import beside\n", encoding="utf-8")
    helper.write_text("HALF = 0.5\n", encoding="utf-8")
    (tmp_path / "stranger.py").write_text("", encoding="utf-8")
    before = entrant(f"{own}:Falls").source
    own.write_text(f"import apart\n{OWN}", encoding="utf-8")
    found = [entrant(f"{own}:Falls").source]
    for text in ("HALF = 0.25\n", "HALF = 0.25\n", "HALF = 0.5\n"):
        helper.write_text(text, encoding="utf-8")
        found.append(entrant(f"{own}:Falls").source)
    (tmp_path / "stranger.py").write_text("changed = True\n", encoding="utf-8")
    found.append(entrant(f"{own}:Falls").source)
    assert [found.index(source) for source in found] == [0, 1, 1, 0, 0]
    assert before not in found


def test_a_users_mixer_that_failed_is_tried_again(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contexture.evaluation.ladder import train_cell

    results = [{"status": "failed", "reason": "no"}, {"status": "unmatched", "reason": "none"}]
    monkeypatch.setattr(train_cell, "run_cell", lambda one: results.pop(0))

    def again() -> str:
        where = {"matches": ["parameters"], "run_dir": tmp_path / "r"}
        return climb([entrant(f"{own}:Falls")], choose_rungs(["induction"]), TINY, **where).placings[0].status

    assert [again() for _ in range(3)] == ["failed", "unmatched", "unmatched"]


def test_a_folder_belongs_to_one_budget(tmp_path: Path) -> None:
    def run(budget: Budget) -> None:
        climb([], choose_rungs(["induction"]), budget, matches=["parameters"], run_dir=tmp_path / "r")

    run(TINY)
    with pytest.raises(InputError, match="holds a ladder of the budget 'tiny'"):
        run(replace(TINY, name="small"))


def test_an_interrupt_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contexture.evaluation.ladder import train_cell

    def interrupted(one: Cell) -> dict[str, Any]:
        if one.rung.name == "mqar-4":
            raise KeyboardInterrupt
        return {"status": "failed", "reason": "not really trained"}

    monkeypatch.setattr(train_cell, "run_cell", interrupted)
    with pytest.raises(Interrupted, match=r"1 of 2 cells are done and kept in .*: the same command goes on"):
        climb(
            [entrant("softmax")], choose_rungs(["induction", "mqar-4"]), TINY, matches=["parameters"], run_dir=tmp_path
        )
    assert read_cell(tmp_path, cell("softmax", "induction")) is not None


def alive(group: int, *, seconds: float) -> bool:
    """Whether any process of the group is left after so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another event there")
def test_ctrl_c_ends_the_command_with_130_and_no_process_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "contexture.cli", "compare", "recall", "--mixers", "softmax", "--budget", "full"]
    with subprocess.Popen(
        [*command, "--no-report", "--run-dir", str(tmp_path / "r"), "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "13 cells\n"
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130
    assert "interrupted; 0 of 13 cells are done" in said
    assert not alive(process.pid, seconds=30)


def placing(mixer: str, rung: str, value: float, **changes: Any) -> Placing:
    facts = {"low": value - 0.1, "high": value + 0.1, "seconds": 2.0, "parameters": 100, "state_bytes": 2048}
    return Placing(mixer=mixer, rung=rung, match="parameters", status="done", accuracy=value, **{**facts, **changes})


def ladder_of(placings: Sequence[Placing], labels: Sequence[str] = ("a", "b<script>")) -> Ladder:
    card = MixerCard(name="x", summary="x", paper="Somebody 2020", year=2020, state="constant", cost="linear")
    rungs = choose_rungs(["induction", "mqar-4"])
    return Ladder(
        budget=replace(TINY, num_seeds=3),
        entrants=tuple(Entrant(spec=label, label=label, card=card) for label in labels),
        rungs=rungs,
        matches=("parameters",),
        placings=tuple(placings),
        chance={rung.name: rung.build().chance for rung in rungs},
    )


def test_a_mean_is_over_all_rungs_or_not_there() -> None:
    ladder = ladder_of(
        [placing("a", "induction", 0.5), placing("b<script>", "induction", 0.2), placing("b<script>", "mqar-4", 0.4)]
    )
    best, other = ladder.standings("parameters")
    assert (best.entrant.label, best.mean) == ("b<script>", pytest.approx(0.3))
    assert other.entrant.label == "a"
    assert math.isnan(other.mean)


def test_the_document_is_strict_json_and_the_report_escapes_names() -> None:
    ladder = ladder_of(
        [
            placing("a", "induction", 0.5),
            placing("a", "mqar-4", 0.75, low=math.nan, high=math.nan),
            placing("b<script>", "induction", 0.2),
            Placing(mixer="b<script>", rung="mqar-4", match="parameters", status="failed", reason="<b>no</b>"),
        ]
    )
    document = json.loads(ladder.to_json(), parse_constant=pytest.fail)
    assert document["schema"] == "contexture.ladder/1"
    assert [one["accuracy"] for one in document["placings"]] == [0.5, 0.75, 0.2, None]
    assert document["rungs"][1]["chance"] == pytest.approx(1 / 16)
    html = render_ladder(ladder)
    assert "b<script>" not in html
    assert "<b>no</b>" not in html
    assert html.count("<svg") == 4


def test_what_reads_as_the_best_of_a_rung_is_bold() -> None:
    found = {"a": (0.996, 0.5), "b": (0.999, 0.504), "c": (0.9, 0.52)}
    rungs = ("induction", "mqar-4")
    placings = [
        placing(name, rung, value) for name, both in found.items() for rung, value in zip(rungs, both, strict=True)
    ]
    picture = accuracy_by_rung(ladder_of(placings, labels=tuple(found)), "parameters")
    shown = re.findall(r"<text([^>]*)>(\d\.\d\d)</text>", picture)
    assert sorted(text for style, text in shown if re.search("bold|700", style)) == ["0.52", "1.00", "1.00"]
    assert len(shown) == 6


def test_a_narrow_terminal_gets_every_rung_over_several_tables() -> None:
    ladder = ladder_of([placing("a", "induction", 0.5), placing("a", "mqar-4", 0.75)], labels=("a",))
    for width, tables in ((120, 1), (48, 2)):
        console = Console(width=width, record=True, file=io.StringIO())
        print_ladder(ladder, console)
        text = console.export_text()
        assert text.count("recall, equal parameters") == tables
        assert ("0.50 ±0.10" in text) == (width == 120)
        assert "0.75" in text


def test_accuracies_read_as_people_expect() -> None:
    assert accuracy(placing("a", "induction", 0.5), interval=True) == "0.50 ±0.10"
    assert accuracy(placing("a", "induction", 0.5), interval=True, unicode=False) == "0.50 +-0.10"
    assert accuracy(None, interval=True) == "-"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: choose_budget("huge"), "no budget is named 'huge'"),
        (lambda: choose_matches(("weights",)), "cannot be matched by 'weights'"),
        (lambda: choose_rungs(["mqr"]), "no rung of the ladder is named 'mqr'"),
        (lambda: entrant("row-attention"), "sees whole sets"),
        (lambda: api.recall(["softmax", "softmax"], run_dir="unused"), "asked for twice"),
    ],
)
def test_what_cannot_be_run_is_named(call: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()


def test_a_task_means_all_its_rungs() -> None:
    assert [rung.name for rung in choose_rungs(["mqar"])] == ["mqar-4", "mqar-8", "mqar-16"]
    assert {name for budget in BUDGETS.values() for name in budget.rungs} == set(RUNGS)


def test_the_command_prints_a_table_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(BUDGETS, "tiny", TINY)  # type: ignore[arg-type]
    monkeypatch.setattr("contexture.commands.compare_recall.num_workers", lambda options: 0)
    arguments = ["compare", "recall", "--mixers", "softmax", "--budget", "tiny", "--tasks", "induction"]
    assert main([*arguments, "--report", "ladder.html"]) == 0
    said = capsys.readouterr()
    assert "recall, equal parameters" in said.out
    assert "[1/1] softmax on induction (parameters)" in said.err
    assert Path("ladder.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main([*arguments, "--json", "--no-report"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["placings"][0]["mixer"] == "softmax"
    assert "1 of them kept from before" in said.err
    assert main([*arguments, "--no-report", "--figure", "rungs.svg", "--markdown", "ladder.md"]) == 0
    accuracy = json.loads(said.out)["placings"][0]["accuracy"]
    assert all(Path(f"rungs{part}.svg").read_text().count(">softmax<") == 1 for part in ("", "-state", "-seconds"))
    assert f">{accuracy:.2f}<" in Path("rungs.svg").read_text()
    assert f"| {accuracy:.2f} |" in Path("ladder.md").read_text()
    assert main(["compare", "diabetes", "--markdown", "ladder.md", "--no-report"]) == 2
    assert main(["compare", "recall", "--no-report"]) == 2
    assert "say which mixers" in capsys.readouterr().err
    assert main(["compare", "recall", "--mixers", "softmax", "--metric", "log-loss", "--no-report"]) == 2
    assert "--metric cannot be used with the recall ladder" in capsys.readouterr().err


def test_a_hundred_steps_are_better_than_three() -> None:
    def judged(steps: int) -> dict[str, Any]:
        return run_cell(
            cell("softmax", budget=replace(TINY, width=32, batch=32, steps=steps, rates=(0.06,), num_seeds=1))
        )

    few, many = judged(3), judged(100)
    assert few["accuracy"] < 0.15 < many["accuracy"]
    assert math.isnan(many["low"])


PICKY = """
from contexture.mixers.linear_attention import IdentityLinearAttention
from contexture.protocols import MixerCard


class Picky(IdentityLinearAttention):
    card = MixerCard(name="picky", summary="Takes multiples of 24.", state="constant", cost="linear")

    def __init__(self, width, *, num_heads, generator, gain=1.0):
        if width % 24:
            raise ValueError(f"{width} is no multiple of 24")
        super().__init__(width, num_heads=num_heads, generator=generator, gain=gain)


class Never(Picky):
    card = MixerCard(name="never", summary="Takes no width.", state="constant", cost="linear")

    def __init__(self, width, *, num_heads, generator, gain=1.0):
        super().__init__(1, num_heads=num_heads, generator=generator, gain=gain)
"""


def test_widths_that_a_mixer_refuses_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "picky.py"
    path.write_text(PICKY, encoding="utf-8")
    budget = replace(TINY, state_bytes=2 * (2 * 24 * 24 * 4 + 8) + 8)
    assert matched(f"{path}:Picky", RUNGS["mqar-4"], budget, "state").width == 48
    result = run_cell(cell(f"{path}:Never", match="state"))
    assert (result["status"], result["reason"]) == ("failed", "ValueError in picky.py, line 11: 1 is no multiple of 24")
