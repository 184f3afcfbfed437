"""The mixer that the documents show: it is the code there that keeps the laws, breaks them as printed, and climbs."""

import re
from pathlib import Path

import pytest

from contexture.cli import main

ADDING = Path(__file__).resolve().parent.parent / "docs" / "adding.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The code block that is a file, saved where the text says."""
    blocks = re.findall(r"```python\n(.*?)```", ADDING.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if not block.startswith(">>>")]
    assert len(code.splitlines()) < 150
    monkeypatch.chdir(tmp_path)
    Path("fading_memory.py").write_text(code, encoding="utf-8")
    return code


def said_in_the_document(line: str) -> bool:
    return f"    {line.strip()}\n" in ADDING.read_text(encoding="utf-8")


def test_the_mixer_of_the_documents_keeps_the_laws(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mixers", "fading_memory.py:FadingMemory"]) == 0
    assert said_in_the_document(capsys.readouterr().out)


def test_its_mutant_breaks_the_law_at_the_position_that_is_printed(
    example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mutant = example.replace("q * total.exp().unsqueeze(-1)", "q")
    assert mutant != example
    Path("fading_memory.py").write_text(mutant, encoding="utf-8")
    assert main(["check", "mixers", "fading_memory.py:FadingMemory"]) == 1
    assert said_in_the_document(capsys.readouterr().err)


def test_it_climbs_the_tiny_ladder(
    example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("contexture.commands.compare_recall.num_workers", lambda options: 0)
    command = ["compare", "recall", "--mixers", "fading_memory.py:FadingMemory", "--budget", "tiny", "--no-report"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "fading-memory (own)" in said.out
    assert "failed" not in said.out
