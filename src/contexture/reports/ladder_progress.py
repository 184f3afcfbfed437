"""What a run of the ladder shows while it runs: each cell that is done, and an estimate of the time left."""

import math
import sys
import time
from typing import TextIO

from contexture.evaluation.ladder.ladder import Placing
from contexture.training.progress import duration


def said(placing: Placing) -> str:
    """A cell's result in a few words.

    >>> said(Placing(mixer="softmax", rung="mqar-4", match="parameters", status="done", accuracy=0.5, steps=12))
    'softmax on mqar-4 (parameters): 0.50 after 12 steps'
    """
    where = f"{placing.mixer} on {placing.rung} ({placing.match})"
    if placing.status != "done":
        return f"{where} {placing.status}: {placing.reason}"
    interval = f" ({placing.low:.2f} to {placing.high:.2f})" if math.isfinite(placing.low) else ""
    return f"{where}: {placing.accuracy:.2f}{interval} after {placing.steps} steps"


class ClimbLines:
    """One line for each cell on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def start(self, *, total: int, kept: int, workers: int) -> None:
        """Say how much there is to do."""
        self.total, self.workers = total, max(1, workers)
        self.finished: list[float] = []
        kept_already = f", {kept} of them kept from before" if kept else ""
        print(f"{total} cells{kept_already}", file=self.stream, flush=True)

    def done(self, placing: Placing, *, left: int) -> None:
        """Say what came out, and how long the rest will take."""
        self.finished.append(time.monotonic())
        print(f"[{self.total - left}/{self.total}] {said(placing)}{self._rest(left)}", file=self.stream, flush=True)

    def _rest(self, left: int) -> str:
        """The time left at the pace since the first cells were done, which leaves the start of processes out."""
        since = self.finished[self.workers - 1 :]
        if not left or len(since) < 2:
            return ""
        return f"; about {duration((since[-1] - since[0]) / (len(since) - 1) * left)} left"

    def stop(self) -> None:
        """Nothing is left to end."""


class ClimbBar:
    """A bar that redraws itself on a terminal, with the cells that are done above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("recall ladder"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
            speed_estimate_period=600.0,
        )

    def start(self, *, total: int, kept: int, workers: int) -> None:
        """Draw the bar."""
        del workers
        self._task = self._bar.add_task("", total=total, completed=kept)
        self._bar.start()

    def done(self, placing: Placing, *, left: int) -> None:
        """Move the bar."""
        del left
        self._bar.console.print(said(placing), markup=False, highlight=False)
        self._bar.advance(self._task)

    def stop(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def display() -> ClimbLines | ClimbBar:
    """A bar if the standard error stream is a terminal, else plain lines."""
    return ClimbBar() if sys.stderr.isatty() else ClimbLines(sys.stderr)
