import io

import pytest

from contexture.training.progress import Bar, Lines, Smoothed, display, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_give_step_loss_and_time_left() -> None:
    stream = io.StringIO()
    lines = Lines(stream, every=0.0)
    lines.start(steps=4, done=0)
    for step in (1, 2, 3, 4):
        lines.advance(step, 2.0)
    said = stream.getvalue().splitlines()
    assert said[0].startswith("step 1 of 4, loss 2, ")
    assert said[-1] == "step 4 of 4, loss 2, 0 s left"


def test_lines_keep_quiet_between_times_but_not_at_the_end() -> None:
    stream = io.StringIO()
    lines = Lines(stream, every=3600.0)
    lines.start(steps=3, done=1)
    lines.advance(2, 1.0)
    assert stream.getvalue() == ""
    lines.advance(3, 1.0)
    assert "step 3 of 3" in stream.getvalue()


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines() -> None:
    assert isinstance(display(Terminal()), Bar)
    assert isinstance(display(io.StringIO()), Lines)


def test_a_bar_shows_loss_and_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    bar = display(stream)
    bar.start(steps=2, done=0)
    bar.advance(1, 0.5)
    bar.note("a checkpoint [was] damaged")
    bar.advance(2, 0.5)
    bar.stop()
    assert "loss 0.5" in stream.getvalue()
    assert "a checkpoint [was] damaged" in stream.getvalue()
    assert "2/2" in stream.getvalue()


def test_the_average_has_no_bias_and_follows() -> None:
    average = Smoothed(share=0.5)
    assert [average.add(value) for value in (4.0, 4.0, 1.0)] == pytest.approx([4.0, 4.0, 16 / 7])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.7, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")]
)
def test_durations_read_as_said(seconds: float, text: str) -> None:
    assert duration(seconds) == text
