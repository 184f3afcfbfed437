"""`contexture compare ENVIRONMENT --agents A,B`: agents that act, as a table, a report and a picture."""

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from contexture.commands.settings import parse
from contexture.errors import InputError

if TYPE_CHECKING:
    from contexture.evaluation.compare import Progress
    from contexture.evaluation.comparison import Comparison

FOREIGN = ("learners", "episodes", "mixers", "tasks", "target", "type", "categorical", "numeric", "delimiter")
"""Options of `compare` that say nothing about agents."""


def names_an_environment(name: str) -> bool:
    """Whether a word names something to act in: a registered environment, or a class in a user's own file."""
    from contexture.discovery import from_file, registered
    from contexture.environments.choice import ALIASES
    from contexture.protocols import EnvironmentCard

    if ".py:" not in name:
        return name in {*registered("environments"), *ALIASES}
    try:
        return isinstance(from_file(name, "environments").card, EnvironmentCard)
    except InputError:
        return False


def compare(options: argparse.Namespace, progress: "Progress | None") -> "Comparison":
    """Let the agents act; InputError for options that belong to learners."""
    from contexture.api import compare_agents

    strays = [f"--{name}" for name in FOREIGN if getattr(options, name)]
    if strays:
        raise InputError(f"{', '.join(strays)} cannot be used with an environment, in which agents act: see --agents")
    settings: dict[str, Any] = parse(options.set)
    return compare_agents(
        options.task,
        options.agents,
        settings=settings,
        steps=options.steps,
        context=options.context,
        worlds=options.worlds,
        seeds=options.seeds or 3,
        metric=options.metric,
        name=options.task,
        command=shlex.join(["contexture", *sys.argv[1:]]),
        progress=progress,
    )


def refuse_strays(options: argparse.Namespace) -> None:
    """Options of agents where the task is nothing to act in."""
    strays = [f"--{name}" for name in ("agents", "steps", "worlds") if getattr(options, name)]
    if strays:
        raise InputError(
            f"{', '.join(strays)} go with an environment, and {options.task!r} is none: "
            "see `contexture list environments`"
        )
