"""Running a family of laws over one thing, with its waivers."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from contexture.errors import ContextureError, InputError, told
from contexture.testing.errors import LawError

Thing = TypeVar("Thing")


def run_laws(
    laws: Mapping[str, Callable[[Thing], None]],
    thing: Thing,
    *,
    waivers: Mapping[str, str] | None = None,
    only: tuple[str, ...] = (),
) -> None:
    """Raise LawError at the first law that `thing` breaks; a waived law has to be broken, or its waiver goes.

    What `thing` raises breaks the law at which it does. A waiver that names no law breaks that of the card; InputError
    where `only` does.
    """
    waived = waivers or {}
    known = f"there are {', '.join(laws)}"
    if wrong := [name for name in only if name not in laws]:
        raise InputError(f"no law is named {wrong[0]!r}: {known}")
    if wrong := [name for name in waived if name not in laws]:
        raise LawError("card", f"the waiver of {wrong[0]!r} names no law that applies: {known}")
    for name, law in laws.items():
        if only and name not in only:
            continue
        if name not in waived:
            _hold(name, law, thing)
            continue
        try:
            law(thing)
        except Exception:
            continue
        raise LawError(name, "is waived but holds: remove the waiver")


def _hold(name: str, law: Callable[[Thing], None], thing: Thing) -> None:
    try:
        law(thing)
    except (LawError, ContextureError):
        raise
    except Exception as fault:
        raise LawError(name, told(fault)) from fault
