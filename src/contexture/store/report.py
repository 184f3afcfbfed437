"""Where the store says what it found amiss: a plain function, so that a progress display can take it over."""

import sys
from collections.abc import Callable

Report = Callable[[str], None]


def to_stderr(message: str) -> None:
    """Print one sentence on the standard error stream, where it cannot mix with data."""
    print(message, file=sys.stderr, flush=True)
