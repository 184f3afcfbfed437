"""What a training run shows while it runs: loss and time left, on the standard error stream.

On a terminal a bar that redraws itself; elsewhere (a log file, a pipe) one plain line now and then.
"""

import sys
import time
from typing import Protocol, TextIO


class Progress(Protocol):
    """Told of every step; decides for itself what to show."""

    def start(self, *, steps: int, done: int) -> None:
        """The run is about to go from step `done` to step `steps`."""
        ...

    def advance(self, step: int, loss: float) -> None:
        """`step` steps are done; `loss` is the last one's."""
        ...

    def note(self, text: str) -> None:
        """Say one sentence without disturbing the display."""
        ...

    def stop(self) -> None:
        """The run has ended, in whatever way."""
        ...


class Silent:
    """Shows nothing but notes, which go to the standard error stream."""

    def start(self, *, steps: int, done: int) -> None:
        """Nothing."""

    def advance(self, step: int, loss: float) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Print the sentence."""
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Nothing."""


class Smoothed:
    """An exponential average of the loss, over about the last 50 steps, that starts without a bias."""

    def __init__(self, share: float = 0.02) -> None:
        self.share = share
        self._sum = self._weight = 0.0

    def add(self, loss: float) -> float:
        """Take in one more loss; returns the average.

        >>> average = Smoothed()
        >>> average.add(3.0)
        3.0
        """
        self._sum += self.share * (loss - self._sum)
        self._weight += self.share * (1 - self._weight)
        return self._sum / self._weight


class Lines:
    """One line every `every` seconds: step, loss, time left."""

    def __init__(self, stream: TextIO, *, every: float = 30.0) -> None:
        self.stream, self.every = stream, every
        self._loss = Smoothed()

    def start(self, *, steps: int, done: int) -> None:
        """Begin to measure time."""
        self._steps, self._first = steps, done
        self._began = self._shown = time.monotonic()

    def advance(self, step: int, loss: float) -> None:
        """Print a line if it is time, or if this is the last step."""
        average, now = self._loss.add(loss), time.monotonic()
        if now - self._shown < self.every and step < self._steps:
            return
        self._shown = now
        left = (now - self._began) / (step - self._first) * (self._steps - step)
        self.note(f"step {step} of {self._steps}, loss {average:.4g}, {duration(left)} left")

    def note(self, text: str) -> None:
        """Print the sentence."""
        print(text, file=self.stream, flush=True)

    def stop(self) -> None:
        """Nothing is left to end."""


class Bar:
    """A bar that redraws itself on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._loss = Smoothed()
        self._bar = RichProgress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=stream),
        )

    def start(self, *, steps: int, done: int) -> None:
        """Draw the bar."""
        self._task = self._bar.add_task("", total=steps, completed=done, loss=float("nan"))
        self._bar.start()

    def advance(self, step: int, loss: float) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=step, loss=self._loss.add(loss))

    def note(self, text: str) -> None:
        """Print the sentence above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def display(stream: TextIO | None = None) -> Progress:
    """A bar if the stream (by default the standard error stream) is a terminal, else plain lines."""
    stream = sys.stderr if stream is None else stream
    return Bar(stream) if stream.isatty() else Lines(stream)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as a reader would say them.

    >>> duration(3723)
    '1 h 02 min'
    >>> duration(75)
    '1 min 15 s'
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
