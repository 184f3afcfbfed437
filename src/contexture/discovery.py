"""Finding what is registered: every class with a card of its own in a room's modules, plus users' own classes.

A class is registered by being defined, with a class attribute `card`, in a module of its room. There is no list to
keep and no import side effect: discovery walks the package. A module that fails to import is an error, and so is a name
that is taken twice.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from contexture.errors import InputError, told
from contexture.protocols import AgentCard, Card, EnvironmentCard, LearnerCard, MixerCard, TaskCard

if TYPE_CHECKING:
    from contexture.claims.protocol import Paper

ROOMS: dict[str, tuple[str, type[Card]]] = {
    "learners": ("contexture.learners", LearnerCard),
    "mixers": ("contexture.mixers", MixerCard),
    "tasks": ("contexture.tasks", TaskCard),
    "environments": ("contexture.environments", EnvironmentCard),
    "agents": ("contexture.agents", AgentCard),
}


def _modules(package: str) -> Iterator[ModuleType]:
    root = importlib.import_module(package)
    yield root
    for found in pkgutil.walk_packages(root.__path__, prefix=f"{package}."):
        yield importlib.import_module(found.name)


def _classes(module: ModuleType, kind: type[Card]) -> Iterator[type[Any]]:
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and value.__module__ == module.__name__
            and isinstance(vars(value).get("card"), kind)
        ):
            yield value


@cache
def _built_in(room: str) -> dict[str, type[Any]]:
    package, kind = ROOMS[room]
    found: dict[str, type[Any]] = {}
    for module in _modules(package):
        for cls in _classes(module, kind):
            if cls.card.name in found:
                raise InputError(f"two {room} are named {cls.card.name!r}: {found[cls.card.name]} and {cls}")
            found[cls.card.name] = cls
    for point in entry_points(group=f"contexture.{room}"):
        cls = point.load()
        if not isinstance(getattr(cls, "card", None), kind):
            raise InputError(f"the entry point {point.value!r} has no {kind.__name__} named `card`")
        if cls.card.name in found:
            raise InputError(f"the entry point {point.value!r} takes the name {cls.card.name!r}, which exists already")
        found[cls.card.name] = cls
    return dict(sorted(found.items()))


def registered(room: str) -> dict[str, type[Any]]:
    """Every registered class of a room (a key of ROOMS, such as "mixers") by its card's name, sorted."""
    return dict(_built_in(room))


@cache
def ops() -> dict[str, Any]:
    """Every op by its name: what each module of contexture.ops has of the type Op; kernels, below it, stay unread.

    >>> "lean-decode" in ops()
    True
    """
    from contexture.ops.dispatch import Op

    room = importlib.import_module("contexture.ops")
    modules = (
        importlib.import_module(f"{room.__name__}.{found.name}") for found in pkgutil.iter_modules(room.__path__)
    )
    every = (value for module in modules for value in vars(module).values())
    return dict(sorted((value.name, value) for value in every if isinstance(value, Op)))


@cache
def papers() -> dict[str, "Paper"]:
    """Every paper by its key: the `PAPER` of each module of contexture.papers, with the claims of that module."""
    found: dict[str, Paper] = {}
    for module in _modules("contexture.papers"):
        if "PAPER" not in vars(module):
            continue
        paper = paper_of(module)
        if paper.key in found:
            raise InputError(f"two papers have the key {paper.key!r}")
        found[paper.key] = paper
    return dict(sorted(found.items()))


def paper_of(module: ModuleType) -> "Paper":
    """A module's paper with its claims, in the order in which they stand; InputError where there is none."""
    import hashlib
    from dataclasses import replace

    from contexture.claims.protocol import Claim, Paper

    paper, file = vars(module).get("PAPER"), getattr(module, "__file__", None)
    if not isinstance(paper, Paper):
        raise InputError(f"{file or module} defines no PAPER = Paper(...)")
    claims = tuple(value for value in vars(module).values() if isinstance(value, Claim))
    names = [claim.name for claim in claims]
    if not claims or len(set(names)) < len(names):
        raise InputError(f"{file or module} needs claims, each with a name of its own, but has {names}")
    source = Path(file).read_bytes() if file else b""
    return replace(paper, claims=claims, source=hashlib.sha256(source).hexdigest()[:20])


def find_paper(name: str) -> "Paper":
    """The paper of a key, or of a user's own file.py; InputError lists what exists."""
    if name.endswith(".py"):
        return paper_of(_module_from_file(Path(name), spec=name))
    known = papers()
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise InputError(f"no paper has the key {name!r}: {hint}")
    return known[name]


def _module_from_file(path: Path, *, spec: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{spec!r} does not name a file")
    module_spec = importlib.util.spec_from_file_location(f"contexture_user_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        # Files beside it can be imported, after everything that is installed.
        sys.path.append(folder)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(f"{path} could not be imported: {told(error)}") from error
    return module


def from_file(spec: str, room: str) -> type[Any]:
    """Load a user's own class from "path/to/file.py:ClassName" and check that its card fits the room."""
    path_text, _, name = spec.rpartition(":")
    path = Path(path_text)
    if not path_text or not path.is_file():
        raise InputError(f"{spec!r} does not name a file: write it as path/to/file.py:ClassName")
    module = _module_from_file(path, spec=spec)
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        raise InputError(f"{path} defines no class {name!r}")
    if not isinstance(getattr(cls, "card", None), ROOMS[room][1]):
        raise InputError(f"{path}:{name} has no class attribute `card` of type {ROOMS[room][1].__name__}")
    return cls


def build(cls: type[Any]) -> Any:
    """An instance of a registered class: by its own `example()` where it cannot be built without arguments."""
    return cls.example() if hasattr(cls, "example") else cls()


def find(name: str, room: str) -> type[Any]:
    """The class registered under `name`, or a user's own "file.py:ClassName"; InputError lists what exists."""
    if ".py:" in name:
        return from_file(name, room)
    known = registered(room)
    if name not in known and Path(name).is_file():
        raise InputError(f"{name!r} is a file: say which class of it, as in {Path(name).stem}.py:MyClass")
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise InputError(f"no {room.removesuffix('s')} is named {name!r}: {hint}")
    return known[name]
