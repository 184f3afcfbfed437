"""`contexture check ROOM NAME`: hold what is registered, or your own, to the laws; a broken one is exit status 1."""

import argparse
from typing import Any

from contexture.commands.console import say


def run(options: argparse.Namespace) -> int:
    """Run the laws that the card makes apply, and name the first that is broken."""
    from contexture.discovery import find, find_paper
    from contexture.testing import LawError, check_paper

    try:
        if options.room == "papers":
            check_paper(find_paper(options.name))
        else:
            _check(options.room, find(options.name, options.room))
    except LawError as broken:
        say(f"{options.name} breaks the {broken}")
        return 1
    print(f"{options.name} keeps the laws of {options.room}")
    return 0


def _check(room: str, cls: type[Any]) -> None:
    from contexture import testing
    from contexture.discovery import build
    from contexture.environments.gaussian_bandit import GaussianBandit

    if room == "mixers":
        check = testing.check_mixer if cls.card.causal else testing.check_set_mixer
        check(cls)
    elif room == "learners":
        testing.check_learner(build(cls))
    elif room == "environments":
        testing.check_environment(build(cls))
    elif room == "agents":
        testing.check_agent(cls if hasattr(cls, "example") else cls(GaussianBandit()))
    else:
        testing.check_task(build(cls))
