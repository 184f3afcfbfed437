import io

import pytest
from rich.console import Console

from contexture.reports.terminal import LAYOUTS, fitting, mark, print_comparison
from report_toys import family, measured, table


def printed(comparison: object, *, width: int = 140, terminal: bool = False, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    colours = "standard" if terminal else "auto"
    print_comparison(comparison, Console(file=stream, width=width, force_terminal=terminal, color_system=colours))  # type: ignore[arg-type]
    stream.flush()
    return raw.getvalue().decode(encoding)


def row(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(name)).split()


def test_a_row_holds_kind_scores_marks_and_costs() -> None:
    text = printed(table())
    headings = "learner kind n=20 n=50 n=100 seconds parameters state"
    assert row(text, "learner") == headings.split()
    scores = "0.600 ±0.050* 0.500 ±0.050* 0.450 ±0.050"
    assert row(text, "transformer") == f"transformer in-context {scores} 13 ms 900 k 2.0 KiB".split()
    assert row(text, "ridge")[2:8] == ["0.700", "±0.050", "0.520", "±0.050~", "0.400", "±0.050*"]
    assert row(text, "boosting")[2] == "-"


def test_under_the_table_stands_what_is_missing_and_why() -> None:
    text = printed(table(complete=False))
    assert "left out: 500 examples (the training half holds 221)" in text
    assert "skipped: logistic does not predict numbers" in text
    assert "boosting: boosting needs 30 rows" in text
    assert "interrupted" in text
    assert "lower is better" in text
    assert "interrupted" not in printed(table())


def test_the_oracle_is_named_and_never_marked() -> None:
    text = printed(family())
    assert row(text, "bayes-ridge")[:2] == ["bayes-ridge", "(oracle)"]
    assert not any(cell.endswith(("*", "~")) for cell in row(text, "bayes-ridge"))


def test_no_marks_where_everyone_is_level() -> None:
    comparison = family()
    assert [mark(comparison, "ols", i) for i in range(4)] == ["", "", "", ""]
    assert [mark(comparison, "transformer", i) for i in range(4)] == ["", "*", "*", ""]


def test_off_a_terminal_there_is_no_escape_code() -> None:
    assert "\x1b" not in printed(table())
    assert "\x1b[1" in printed(table(), terminal=True)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(table(), terminal=True)
    assert "\x1b[1m" in text
    assert "32m" not in text


def test_a_console_without_unicode_gets_plain_characters() -> None:
    text = printed(table(), encoding="ascii")
    assert "0.600 +-0.050*" in text
    text.encode("ascii")


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 20])
def test_no_row_is_wider_than_the_terminal(width: int) -> None:
    sizes = tuple(range(0, 40, 2))
    values = [1.0 / (1 + n) for n in sizes]
    many = tuple(measured(f"learner-number-{i}", *values, context=sizes) for i in range(3))
    text = printed(table(measurements=many, context=sizes, tied=((),) * len(sizes)), width=width, terminal=True)
    assert max(len(line) for line in text.splitlines() if "learner-n" in line and "\x1b" not in line) <= width
    if width >= 40:
        assert "learner-number-2 " in text


def test_narrow_terminals_lose_facts_before_sizes_and_intervals() -> None:
    wide, narrow = fitting(table(), width=140), fitting(table(), width=50)
    assert wide == LAYOUTS[0]
    assert narrow.num_sizes >= 2
    assert not narrow.intervals
    assert "±" not in printed(table(), width=50)


def test_an_empty_comparison_prints_its_sentence() -> None:
    assert printed(table(measurements=(), tied=())).startswith("Nothing was measured.")
