"""The options for reading a table, as every command takes them."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contexture.selection import Reading


def reading(options: argparse.Namespace) -> "Reading":
    """What the user said about the file; a target that is a whole number is an index unless a column has that name."""
    from contexture.selection import Reading

    target = options.target
    if target is not None and target.lstrip("-").isdigit():
        target = int(target)
    return Reading(
        target=target,
        type=options.type,
        categorical=tuple(options.categorical),
        numeric=tuple(options.numeric),
        delimiter=options.delimiter,
        encoding=options.encoding,
        header=options.header,
        drop_missing_target=options.drop_missing_target,
    )
