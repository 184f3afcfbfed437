"""From a name and settings to an environment."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from contexture import discovery
from contexture.errors import InputError
from contexture.protocols import Environment

ALIASES = {"bandit": "gaussian-bandit"}
"""Short names for the environments that are asked for most."""


def build_environment(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Environment:
    """The environment of a registered name, or of a user's "file.py:Class"; InputError for what cannot be built.

    >>> build_environment("gaussian-bandit", {"num_arms": 3}).num_actions
    3
    """
    cls = discovery.find(ALIASES.get(name, name), "environments")
    strays = set(settings) - set(inspect.signature(cls).parameters)
    if strays:
        options = ", ".join(inspect.signature(cls).parameters) or "none"
        raise InputError(f"the environment {name!r} has no setting {', '.join(sorted(strays))}: there are {options}")
    try:
        environment: Environment = cls(**settings)
    except TypeError as error:
        raise InputError(f"the environment {name!r} cannot be built from {dict(settings)}: {error}") from error
    return environment
