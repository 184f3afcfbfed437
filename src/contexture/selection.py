"""From the words a user writes to tasks, learners and agents: registered names, files, folders of trained ones.

Everything that cannot be used raises `InputError` with one sentence.
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from contexture.agents.in_context import InContextAgent
from contexture.agents.planning import agent_of
from contexture.agents.saved import load_decisions, load_shipped_decisions, shipped_agents
from contexture.discovery import build, find, registered
from contexture.errors import InputError
from contexture.learners.saved import load_learner, load_shipped, shipped
from contexture.learners.standardized import Standardized
from contexture.protocols import Agent, Environment, Learner, SequenceLearner, Task, Tokens
from contexture.randomness import generator
from contexture.tables import Dataset, read_dataset
from contexture.tasks.tables import BUNDLED, TableTask
from contexture.training.config import TaskChoice

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".dat", ".parquet", ".pq")
TRANSFORMER = "transformer"
TABLES = "tables"

AnyLearner = Learner | SequenceLearner

AGENTS = {
    "arms": ("random", "empirical-mean", "ucb", "thompson"),
    "linear-arms": ("random", "empirical-mean", "ucb", "thompson", "lin-ucb"),
    "states": ("random", "q-learning", "ucb-vi"),
    "features": ("random",),
}
"""The agents that belong beside any other in each family of environments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How to read a table: what is None or empty is found out, and said."""

    target: str | int | None = None
    type: Literal["regression", "classification"] | None = None
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    delimiter: str | None = None
    encoding: str | None = None
    header: bool | None = None
    drop_missing_target: bool = False

    def read(self, path: str | Path) -> Dataset:
        """Read a file in this way; InputError names file, line and column of what is wrong."""
        return read_dataset(
            path,
            target=self.target,
            task=self.type,
            categorical=self.categorical,
            numeric=self.numeric,
            delimiter=self.delimiter,
            encoding=self.encoding,
            header=self.header,
            drop_missing_target=self.drop_missing_target,
        )


def choose_task(
    name: str,
    reading: Reading = Reading(),  # noqa: B008
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Task:
    """The task that a registered name, a bundled table's name or a file's path means.

    settings: fields of a registered task that are not to have their default.
    """
    if settings and (names_a_file(name) or name in BUNDLED):
        raise InputError(f"{name!r} is a table, which has no settings")
    if names_a_file(name):
        return TableTask(dataset=reading.read(name))
    if reading != Reading():
        raise InputError(f"{name!r} is a task and not a file, so the options for reading a table do not apply")
    if name in BUNDLED:
        return TableTask.bundled(name)
    tasks = registered("tasks")
    if ".py:" not in name and (name not in tasks or name == TableTask.card.name):
        raise InputError(_unknown("task and no file", name, {*tasks, *BUNDLED} - {TableTask.card.name}))
    cls = find(name, "tasks")
    task: Task = TaskChoice(name=name, settings=settings).build() if settings else build(cls)
    return task


def names_a_file(name: str) -> bool:
    """Whether a word means a file of rows rather than a registered task."""
    path = Path(name)
    return ".py:" not in name and (path.suffix.lower() in TABLE_SUFFIXES or len(path.parts) > 1 or path.exists())


def choose_learners(task: Task, names: Iterable[str] | None = None) -> dict[str, AnyLearner]:
    """Learners for a task by name, in the order asked; without names, the task's baselines and the shipped learner.

    A name is one of the task's own learners, "transformer" (the shipped one for this task), a registered learner,
    "file.py:Class", or the folder of a trained learner. On tables, learners of numbers alone see standardised columns.
    """
    own = _own(task)
    if names is None:
        return own | ({TRANSFORMER: _transformer(task)} if shipped_name(task) in shipped() else {})
    chosen: dict[str, AnyLearner] = {}
    for name in names:
        if name in chosen:
            raise InputError(f"the learner {name!r} is asked for twice")
        chosen[name] = own[name] if name in own else _named(task, name)
    return chosen


def _own(task: Task) -> dict[str, AnyLearner]:
    """What belongs beside any other learner on a task, under the names that a user may give."""
    own = dict(task.baselines())
    oracle = task.oracle()
    if oracle is not None:
        own.setdefault(oracle.card.name, oracle)
    return own


def _transformer(task: Task) -> Learner:
    """The learner that ships for a task."""
    if shipped_name(task) not in shipped():
        raise InputError(f"no trained transformer ships for {task.card.name!r}: there are {', '.join(shipped())}")
    return load_shipped(shipped_name(task))


def shipped_name(task: Task) -> str:
    """The name under which the learner shipped for a task would be found."""
    return TABLES if isinstance(task, TableTask) else task.card.name


def _named(task: Task, name: str) -> AnyLearner:
    if name == TRANSFORMER:
        return _transformer(task)
    if Path(name).is_dir():
        return load_learner(name)
    known = registered("learners")
    if ".py:" not in name and name not in known:
        raise InputError(_unknown("learner", name, {*known, *_own(task)}))
    cls = find(name, "learners")
    if ".py:" not in name and cls.card.kind == "in-context":
        raise InputError(
            f"{name!r} names a kind of trained model and no weights: ask for {TRANSFORMER!r}, which ships for some "
            "tasks, or for the folder of a trained learner"
        )
    if task.card.episodes == "tokens" and ".py:" not in name:
        return _over_tokens(task, cls)
    learner: Learner = build(cls)
    if isinstance(task, TableTask) and not learner.card.tables:
        return Standardized(learner)
    return learner


def _over_tokens(task: Task, cls: type[Any]) -> AnyLearner:
    """A registered learner for a task's own vocabulary, where that is all it has to be told."""
    needed = [name for name, p in inspect.signature(cls).parameters.items() if p.default is p.empty]
    if needed != ["vocabulary"]:
        learner: AnyLearner = build(cls)
        return learner
    drawn = task.sample(1, generator=generator("vocabulary"))
    assert isinstance(drawn, Tokens)
    told: AnyLearner = cls(vocabulary=drawn.vocabulary)
    return told


def _unknown(what: str, name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(known))}"
    return f"no {what} is named {name!r}: {hint}"


def choose_agents(environment: Environment, names: Iterable[str] | None = None) -> dict[str, Agent]:
    """Agents for an environment by name, in the order asked; without names, the classical ones and the shipped one.

    A name is a registered agent, "transformer" (the one that ships for this environment), "file.py:Class", which is
    called with the environment, or the folder of a trained agent.
    """
    if names is None:
        names = AGENTS[environment.card.family] + ((TRANSFORMER,) if environment.card.name in shipped_agents() else ())
    chosen: dict[str, Agent] = {}
    for name in names:
        if name in chosen:
            raise InputError(f"the agent {name!r} is asked for twice")
        chosen[name] = _agent(environment, name)
    return chosen


def _agent(environment: Environment, name: str) -> Agent:
    if name == TRANSFORMER:
        return InContextAgent.of(load_shipped_decisions(environment.card.name), environment)
    if Path(name).is_dir():
        return agent_of(load_decisions(name), environment)
    known = registered("agents")
    if ".py:" not in name and name not in known:
        raise InputError(_unknown("agent", name, set(known)))
    cls = find(name, "agents")
    if "model" in inspect.signature(cls).parameters:
        raise InputError(f"{name!r} names a kind of trained agent and no weights: give the folder of one")
    agent: Agent = cls(environment)
    return agent
