"""Running a family of laws over one thing, with its waivers."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from contexture.testing.errors import LawError

Thing = TypeVar("Thing")


def run_laws(
    laws: Mapping[str, Callable[[Thing], None]],
    thing: Thing,
    *,
    waivers: Mapping[str, str] | None = None,
    only: tuple[str, ...] = (),
) -> None:
    """Raise LawError at the first law that `thing` breaks; a waived law has to be broken, or its waiver goes."""
    for name, law in laws.items():
        if only and name not in only:
            continue
        if name not in (waivers or {}):
            law(thing)
            continue
        try:
            law(thing)
        except Exception:
            continue
        raise LawError(name, "is waived but holds: remove the waiver")
