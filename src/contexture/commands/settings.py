"""Settings of a task on the command line: --set NAME=VALUE, as often as there are settings."""

import ast
from collections.abc import Iterable
from typing import Any

from contexture.errors import InputError


def parse(pairs: Iterable[str]) -> dict[str, Any]:
    """Names and values; a value is read as Python writes it, or else as text.

    >>> parse(["num_pairs=8", "noise=0.5", "random_filler=False", "name=sine"])
    {'num_pairs': 8, 'noise': 0.5, 'random_filler': False, 'name': 'sine'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.isidentifier():
            raise InputError(f"{pair!r} is no setting: write it as NAME=VALUE, such as num_pairs=8")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found
