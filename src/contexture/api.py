"""What the command line does, as functions: compare learners on a task, predict new rows, load a trained learner."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from contexture.agents.in_context import InContextAgent
from contexture.agents.planning import agent_of
from contexture.agents.saved import holds_decisions, load_decisions, load_shipped_decisions, shipped_agents
from contexture.environments.choice import build_environment
from contexture.errors import InputError
from contexture.evaluation import compare as comparing
from contexture.evaluation import decisions as acting
from contexture.evaluation.compare import Progress
from contexture.evaluation.comparison import Comparison
from contexture.evaluation.curve import draw
from contexture.evaluation.ladder.budget import choose_budget, choose_matches
from contexture.evaluation.ladder.cells import causal_mixers, entrants
from contexture.evaluation.ladder.climb import ClimbProgress, climb
from contexture.evaluation.ladder.ladder import Ladder
from contexture.evaluation.ladder.rungs import choose_rungs
from contexture.evaluation.per_seed import PerSeed
from contexture.evaluation.sequences import usual_sizes
from contexture.learners.saved import load_named
from contexture.protocols import Agent, Environment, Learner, Prediction, Task
from contexture.selection import AnyLearner, Reading, choose_agents, choose_learners, choose_task
from contexture.tables import Dataset, match_columns, read_matching
from contexture.tables.encode import encode_pairs, encode_queries
from contexture.tasks.tables import TableTask

TABLE_SIZES = (20, 50, 100, 200, 500, 1000)


def load(name: str | Path) -> AnyLearner | Agent:
    """A trained learner: one that ships, by name, or the folder of one (a `SequenceLearner` if trained on tokens).

    What was trained to act is an `Agent`, in the environment that it was trained for.

    >>> load("linear-regression").card.kind
    'in-context'
    """
    if str(name) in shipped_agents():
        return InContextAgent.of(load_shipped_decisions(str(name)))
    if Path(name).is_dir() and holds_decisions(name):
        return agent_of(load_decisions(name))
    try:
        return load_named(name)
    except InputError as error:
        raise InputError(f"{error}; agents: {', '.join(shipped_agents()) or 'none'}") from None


def compare(
    task: str | Path | Task,
    learners: Iterable[str] | Mapping[str, AnyLearner | PerSeed] | None = None,
    *,
    reading: Reading = Reading(),  # noqa: B008
    context: Sequence[int] | None = None,
    metric: str | None = None,
    episodes: int | None = None,
    seeds: int = 3,
    name: str | None = None,
    command: str = "",
    skipped: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Comparison:
    """Score learners on one task at several numbers of examples in context, all on the same episodes.

    task: a registered or bundled task's name, a CSV or Parquet file, or a task itself. learners: names, or learners by
    name; by default what belongs beside each other on this task. context: sizes to score at; those that the task
    cannot hold are an error if they were asked for, and left out and named otherwise. episodes: prompts, or splits of a
    table, for each of `seeds` seeds. name: what the result calls the task. skipped: learners that are missing already,
    with their reasons.
    """
    chosen = choose_task(str(task), reading) if isinstance(task, str | Path) else task
    if chosen.card.episodes == "trajectories":
        raise InputError(f"{chosen.card.name!r} is what agents are trained on: compare them in an environment instead")
    entrants = dict(learners) if isinstance(learners, Mapping) else choose_learners(chosen, learners)
    return comparing.compare(
        chosen,
        entrants,
        context=default_sizes(chosen) if context is None else context,
        episodes=episodes,
        seeds=tuple(range(seeds)),
        metric=metric,
        strict=context is not None,
        name=name or (str(task) if isinstance(task, str | Path) else None),
        findings=chosen.describe() if isinstance(chosen, TableTask) else (),
        command=command,
        skipped=skipped,
        progress=progress,
    )


def compare_agents(
    environment: str | Environment,
    agents: Iterable[str] | Mapping[str, Agent] | None = None,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    steps: int | None = None,
    context: Sequence[int] | None = None,
    worlds: int | None = None,
    seeds: int = 3,
    metric: str | None = None,
    name: str | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Comparison:
    """Let agents act in the same worlds: cumulative regret after so many steps, or the return of every episode.

    environment: a registered name or "file.py:Class", built with `settings`, or an environment itself. agents: names,
    or agents by name; by default the classical ones that can act there, and the trained one that ships for it. steps,
    worlds: of every agent, for each of `seeds` seeds. metric: "cumulative-regret" or "return".

    >>> found = compare_agents("gaussian-bandit", ["random", "thompson"], steps=50, context=[50], worlds=50, seeds=2)
    >>> found.of("thompson").value[0] < found.of("random").value[0]
    True
    """
    chosen = build_environment(environment, settings) if isinstance(environment, str) else environment
    return acting.compare_agents(
        chosen,
        dict(agents) if isinstance(agents, Mapping) else choose_agents(chosen, agents),
        steps=steps,
        context=context,
        worlds=worlds or acting.WORLDS,
        seeds=tuple(range(seeds)),
        metric=metric,
        name=name or (environment if isinstance(environment, str) else None),
        command=command,
        progress=progress,
    )


def recall(
    mixers: Iterable[str] | str = "all",
    *,
    budget: str = "small",
    tasks: Iterable[str] | None = None,
    match: Iterable[str] = ("parameters",),
    run_dir: str | Path,
    workers: int = 0,
    command: str = "",
    progress: ClimbProgress | None = None,
) -> Ladder:
    """The recall ladder: where mixers stand on tasks over tokens at equal parameters, state or training time.

    mixers: names and "file.py:Class", or "all" causal ones. budget: tiny, small, standard or full. tasks: rungs, or
    tasks whose rungs are meant; by default the budget's. run_dir: keeps every cell that is done; the same call goes on.
    workers: processes of one thread each; 0 trains in this one. Raises InputError for what cannot be run, Interrupted
    after Ctrl-C. A mixer that fails is a result, with its reason.
    """
    chosen = choose_budget(budget)
    names = causal_mixers() if mixers == "all" else [mixers] if isinstance(mixers, str) else list(mixers)
    return climb(
        entrants(names),
        choose_rungs(chosen.rungs if tasks is None else tasks),
        chosen,
        matches=choose_matches(tuple(match)),
        run_dir=Path(run_dir),
        num_workers=workers,
        command=command,
        progress=progress,
    )


def default_sizes(task: Task) -> tuple[int, ...]:
    """The context sizes to score at unless asked: every one that a synthetic episode holds, a ladder for a table."""
    if isinstance(task, TableTask):
        return TABLE_SIZES
    if task.card.episodes == "tokens":
        return usual_sizes(task)
    return tuple(range(draw(task, episodes=1, seeds=(0,)).most + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class TablePredictions:
    """Predictions for the rows of a new table: columns by name, in the rows' order, and what was said on the way."""

    columns: Mapping[str, list[Any]]
    findings: tuple[str, ...]


def predict(
    train: str | Path | Dataset,
    new: str | Path,
    *,
    reading: Reading = Reading(),  # noqa: B008
    learner: str | Learner = "transformer",
    level: float = 0.8,
) -> TablePredictions:
    """Learn from one table and predict the target for every row of another.

    Columns are matched by name. A regression gives the target's name and, where the learner models a spread, NAME_low
    and NAME_high, between which a share `level` of outcomes should fall; a classification gives the most probable class
    and a column of probabilities for each class.
    """
    dataset = train if isinstance(train, Dataset) else reading.read(train)
    table = read_matching(new, dataset.schema, delimiter=reading.delimiter, encoding=reading.encoding)
    matched = match_columns(dataset.schema, table)
    task = TableTask(dataset=dataset)
    chosen = choose_learners(task, [learner])[learner] if isinstance(learner, str) else learner
    if not isinstance(chosen, Learner):
        raise InputError(f"{learner!r} reads tokens and cannot predict the rows of a table")
    if dataset.schema.task not in chosen.card.targets:
        wanted = "numbers" if dataset.schema.task == "regression" else "classes"
        raise InputError(f"the learner {chosen.card.name!r} does not predict {wanted}: see `contexture list learners`")
    prediction = chosen.predict(encode_pairs(dataset), encode_queries(matched))
    return TablePredictions(
        columns=_columns(prediction, dataset, level), findings=(*dataset.describe(), *matched.findings)
    )


def _columns(prediction: Prediction, dataset: Dataset, level: float) -> dict[str, list[Any]]:
    name = dataset.schema.target.name
    if prediction.probabilities is not None:
        shares = prediction.probabilities[0]
        columns: dict[str, list[Any]] = {name: [dataset.classes[code] for code in shares.argmax(dim=1).tolist()]}
        for code, label in enumerate(dataset.classes):
            columns[f"{name}={label}"] = shares[:, code].tolist()
        return columns
    columns = {name: torch.as_tensor(prediction.value[0]).tolist()}
    interval = prediction.interval(level)
    if interval is not None:
        columns[f"{name}_low"], columns[f"{name}_high"] = (bound[0].tolist() for bound in interval)
    return columns
