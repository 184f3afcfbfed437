"""Tasks by their registered name and settings, as files and other tasks' settings hold them."""

from collections.abc import Mapping
from typing import Any

from contexture import discovery
from contexture.errors import InputError
from contexture.protocols import Task


def named(name: str, settings: Mapping[str, Any]) -> Task:
    """The registered task of that name, or a user's own as "file.py:Class"; InputError for what is unknown.

    >>> named("linear-regression", {"num_features": 2, "noise": 0.5}).chance
    2.25
    """
    cls = discovery.find(name, "tasks")
    try:
        task = cls(**settings)
    except TypeError as error:
        raise InputError(f"the task {name!r} cannot be built from {dict(settings)}: {error}") from error
    assert isinstance(task, Task)
    return task


def as_task(given: Task | Mapping[str, Any]) -> Task:
    """A task as it is, or built from {"name": .., "settings": {..}}; InputError for any other key.

    >>> as_task({"name": "linear-regression", "settings": {"num_features": 3, "noise": 0.0}}).chance
    3.0
    """
    if not isinstance(given, Mapping):
        return given
    if not {"name"} <= set(given) <= {"name", "settings"}:
        raise InputError(f"a task is written as its name and settings, not as {', '.join(map(str, given))}")
    return named(given["name"], given.get("settings", {}))
