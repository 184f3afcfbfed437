"""The options for reading a table, as every command takes them."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contexture.selection import Reading


def reading(options: argparse.Namespace) -> "Reading":
    """What the user said about the file."""
    from contexture.selection import Reading

    return Reading(
        target=options.target,
        type=options.type,
        categorical=tuple(options.categorical),
        numeric=tuple(options.numeric),
        delimiter=options.delimiter,
        encoding=options.encoding,
        header=options.header,
        drop_missing_target=options.drop_missing_target,
    )
