"""The consoles that commands print on: colour and live displays only where there is a terminal."""

import os
import sys
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
