"""What is looked at in a user's own mixers before they are trained beside others."""

from collections.abc import Iterable

from contexture.errors import InputError


def refuse_the_future(names: Iterable[str]) -> None:
    """Raise InputError for a "file.py:Class" whose output depends on later tokens: it would be measured by its leak.

    What else is wrong with a mixer, its training says.
    """
    from contexture.discovery import find
    from contexture.testing import LawError, check_mixer

    for name in names:
        if ".py:" not in name or not (own := find(name, "mixers")).card.causal:
            continue
        try:
            check_mixer(own, laws=("interface", "causality"))
        except LawError as broken:
            if broken.law == "causality" and broken.__cause__ is None:
                raise InputError(
                    f"{name} breaks the {broken}; trained, it would be measured by what it leaks"
                ) from None
