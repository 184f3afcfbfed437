"""Several learners on the same episodes of one task: curves, who cannot be told apart, distances, and the record."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Protocol

from contexture.errors import InputError, told
from contexture.evaluation.comparison import Comparison
from contexture.evaluation.curve import draw, fitting, pick_metric, score
from contexture.evaluation.matching import distances
from contexture.evaluation.per_seed import PerSeed
from contexture.evaluation.samples import CurveSamples, measure, method, tied_with_best
from contexture.evaluation.sources import Source
from contexture.evaluation.splits import SplitTask
from contexture.protocols import Learner, SequenceLearner, Task

__all__ = ["Comparison", "Progress", "compare", "default_episodes"]

EPISODES = 256
SPLITS = 3

AnyLearner = Learner | SequenceLearner | PerSeed


class Progress(Protocol):
    """Told how far a comparison is: which learner of how many, the share of it that is done, and at what."""

    def __call__(self, index: int, total: int, fraction: float, note: str) -> None:
        """index: from 0; fraction: 0 to 1 within this learner; note: its name and what is being done."""
        ...


def default_episodes(task: Task) -> int:
    """How many episodes, or splits of a table, are scored for each seed unless asked otherwise."""
    return SPLITS if isinstance(task, SplitTask) else EPISODES


def compare(
    task: Task,
    learners: Mapping[str, AnyLearner],
    *,
    context: Sequence[int],
    episodes: int | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    metric: str | None = None,
    strict: bool = False,
    name: str | None = None,
    findings: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    command: str = "",
    skipped: Mapping[str, str] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Comparison:
    """Score every learner, and the task's oracle, after each number of examples, all on the same episodes.

    episodes: prompts, or splits of a table, for each seed. strict: a size that the task cannot hold is an error rather
    than left out and named. name: the task's name in the result, by default its card's. findings, settings, command:
    carried into the result; settings default to the task's own fields, or the sizes of a table's halves. skipped:
    learners that were left out before, with their reasons; one that cannot be scored, or fails, joins them. After
    KeyboardInterrupt what is done is returned, marked incomplete. Raises InputError if no size fits or the metric does
    not.
    """
    from contexture.store.environment import environment

    episodes = episodes or default_episodes(task)
    source = draw(task, episodes=episodes, seeds=seeds)
    sizes, left_out = fitting(context, source)
    if left_out and (strict or not sizes):
        named = ", ".join(map(str, left_out))
        raise InputError(f"nothing fits a context of {named}: {next(iter(left_out.values()))}")
    metric_used = pick_metric(metric, task, source)
    everyone, oracle = _with_oracle(task, learners)
    done: list[CurveSamples] = []
    refused = dict(skipped)
    complete = True
    try:
        for index, (label, learner) in enumerate(everyone.items()):
            advance = _Advance(progress=progress, index=index, total=len(everyone), name=label)
            try:
                done.append(score(learner, source, context=sizes, metric=metric_used, name=label, progress=advance))
            except InputError as refusal:
                refused[label] = str(refusal)
            except Exception as fault:
                # A learner may be a user's own: its fault must not cost them the results of the others.
                refused[label] = f"{label} raised {told(fault)}"
    except KeyboardInterrupt:
        complete = False
    contestants = [samples for samples in done if samples.name != oracle]
    references = [samples for samples in done if samples.kind == "classical" or samples.name == oracle]
    return Comparison(
        task=name or task.card.name,
        metric=metric_used.name,
        context=sizes,
        measurements=tuple(measure(samples) for samples in done),
        counted="tokens" if task.card.episodes == "tokens" else "examples",
        method=method(source.halves),
        oracle=oracle if any(samples.name == oracle for samples in done) else None,
        chance=_chance(task, metric_used.name),
        tied=tied_with_best(contestants),
        distances=distances(done, references),
        settings=_settings(task, source, episodes) if settings is None else settings,
        left_out=left_out,
        skipped=refused,
        notes={samples.name: notes for samples in done if (notes := _notes(samples))},
        findings=tuple(findings),
        timing=source.timing,
        environment=environment(),
        command=command,
        seeds=tuple(seeds),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        complete=complete,
    )


def _notes(samples: CurveSamples) -> tuple[str, ...]:
    """What was odd, and how a trained mixer's interval was made."""
    if not samples.per_seed:
        return samples.notes
    number = samples.losses.shape[0]
    return (f"one model trained for each of {number} seeds; interval by Student's t over them", *samples.notes)


class _Advance:
    """The progress of one learner, passed on as the progress of the whole."""

    def __init__(self, *, progress: Progress | None, index: int, total: int, name: str) -> None:
        self._progress = progress
        self._index = index
        self._total = total
        self._name = name

    def __call__(self, share: float, note: str) -> None:
        if self._progress is not None:
            self._progress(self._index, self._total, share, f"{self._name}: {note}")


def _with_oracle(task: Task, learners: Mapping[str, AnyLearner]) -> tuple[dict[str, AnyLearner], str | None]:
    """The learners with the task's oracle first, unless one of them is the oracle already."""
    oracle = task.oracle()
    if oracle is None:
        return dict(learners), None
    for label, learner in learners.items():
        if type(learner) is type(oracle) and repr(learner) == repr(oracle):
            return dict(learners), label
    label = f"{oracle.card.name} (oracle)"
    return {label: oracle, **learners}, label


def _chance(task: Task, metric: str) -> float | None:
    return task.chance if metric == task.card.metric else None


def _settings(task: Task, source: Source, episodes: int) -> dict[str, Any]:
    """A table's halves, or the task's own fields as far as JSON can hold them; and how much was scored."""
    if source.halves is not None:
        halves = source.halves
        return {"training rows": halves.num_train, "held-out rows": halves.num_test, "splits per seed": episodes}
    names: list[str] = [field.name for field in fields(task) if field.repr] if is_dataclass(task) else []
    values = {name: getattr(task, name) for name in names}
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float | bool | None)}
    return {**plain, "episodes per seed": episodes}
