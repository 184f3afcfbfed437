"""The consoles that commands print on: colour and live displays only where there is a terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 160


def console(*, stderr: bool) -> "Console":
    """A console on standard error, or on standard output for data that people read.

    NO_COLOR is honoured by rich itself; off a terminal the width does not depend on the surroundings.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        return Console(stderr=stderr)
    asked = os.environ.get("COLUMNS", "")
    width = int(asked) if asked.isdigit() else PLAIN_WIDTH
    return Console(stderr=stderr, width=width, highlight=False)


def say(*sentences: str) -> None:
    """Print sentences on standard error, one a line."""
    for sentence in sentences:
        print(sentence, file=sys.stderr)


@contextmanager
def share_bar(doing: str) -> "Iterator[Callable[[float, str], None] | None]":
    """A live bar with the time left on a terminal, told the share that is done and a note; None elsewhere."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        shown = bar.add_task(doing, total=1.0)

        def progress(share: float, note: str) -> None:
            bar.update(shown, completed=share, description=note)

        yield progress
