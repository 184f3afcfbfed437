"""The learning curve of one learner on one task: its score after each number of examples.

    curve(n) = E[ metric( prediction after n examples, target of the next ) ]

Synthetic families and token sequences are scored prequentially, tables on held-out rows after n rows; see `synthetic`,
`sequences` and `splits` for what a draw is and what is timed, and `samples` for the intervals.
"""

import statistics
from collections.abc import Sequence

import torch

from contexture.errors import InputError
from contexture.evaluation import metrics
from contexture.evaluation.footprint import num_parameters
from contexture.evaluation.metrics import Metric
from contexture.evaluation.per_seed import PerSeed
from contexture.evaluation.samples import CurveSamples, measure
from contexture.evaluation.sequences import SequenceSource
from contexture.evaluation.sources import Advance, Outcome, Source
from contexture.evaluation.splits import SplitSource, SplitTask
from contexture.evaluation.synthetic import SyntheticSource
from contexture.protocols import Learner, SequenceLearner, Task

__all__ = ["draw", "fitting", "learning_curve", "measure", "pick_metric", "score"]


def draw(task: Task, *, episodes: int, seeds: Sequence[int]) -> Source:
    """Draw what learners will be scored on: `episodes` episodes, or splits of a table, for each seed."""
    if episodes < 1 or not seeds:
        raise InputError(f"scoring needs at least one episode and one seed, not {episodes} and {len(seeds)}")
    if isinstance(task, SplitTask):
        return SplitSource.draw(task, episodes=episodes, seeds=seeds)
    if task.card.episodes == "tokens":
        return SequenceSource.draw(task, episodes=episodes, seeds=seeds)
    return SyntheticSource.draw(task, episodes=episodes, seeds=seeds)


def fitting(context: Sequence[int], source: Source) -> tuple[tuple[int, ...], dict[int, str]]:
    """The sizes that the source holds, ascending, and for each other one the reason why it is left out."""
    sizes = sorted(set(context))
    if not sizes or sizes[0] < 0:
        raise InputError(f"context sizes have to be whole numbers from 0 up, not {list(context)}")
    where = "the training half holds" if source.halves else "before the last of an episode there are"
    reason = f"{where} {source.most}"
    return tuple(n for n in sizes if n <= source.most), {n: reason for n in sizes if n > source.most}


def pick_metric(name: str | None, task: Task, source: Source) -> Metric:
    """The metric of that name, or the task's own; InputError where it does not score this kind of target."""
    metric = metrics.find(name or task.card.metric)
    if source.target not in metric.targets:
        fit = ", ".join(sorted(known for known, m in metrics.METRICS.items() if source.target in m.targets))
        raise InputError(f"{metric.name} does not score a {source.target}: there are {fit}")
    return metric


def score(
    learner: Learner | SequenceLearner | PerSeed,
    source: Source,
    *,
    context: Sequence[int],
    metric: Metric,
    name: str | None = None,
    progress: Advance | None = None,
) -> CurveSamples:
    """Score one learner on episodes already drawn; InputError where a size does not fit or the learner cannot."""
    sizes, left_out = fitting(context, source)
    if left_out:
        raise InputError(f"nothing fits a context of {', '.join(map(str, left_out))}: {next(iter(left_out.values()))}")
    advance = progress or _say_nothing
    with torch.no_grad():
        if isinstance(learner, PerSeed):
            outcome = _score_each(learner, source, sizes, metric, advance)
        else:
            outcome = source.score(learner, context=sizes, metric=metric, advance=advance)
        one = learner.learners[0] if isinstance(learner, PerSeed) else learner
        kept = source.kept(one, max(sizes))
    return CurveSamples(
        name=name or learner.card.name,
        kind=learner.card.kind,
        metric=metric,
        context=sizes,
        losses=outcome.losses,
        answers=outcome.answers,
        seconds=outcome.seconds,
        parameters=num_parameters(one),
        state_bytes=kept,
        halves=source.halves,
        notes=outcome.notes,
        per_seed=isinstance(learner, PerSeed),
    )


def _score_each(entrant: PerSeed, source: Source, sizes: Sequence[int], metric: Metric, advance: Advance) -> Outcome:
    """Model s on the episodes of seed s; seconds are the median model's."""
    if len(entrant.learners) != source.num_seeds:
        raise InputError(
            f"there are {len(entrant.learners)} models for {source.num_seeds} seeds, one for each is needed"
        )
    outcomes = [
        source.of_seed(index).score(learner, context=sizes, metric=metric, advance=advance)
        for index, learner in enumerate(entrant.learners)
    ]
    answers = [outcome.answers for outcome in outcomes if outcome.answers is not None]
    return Outcome(
        losses=torch.cat([outcome.losses for outcome in outcomes]),
        answers=torch.cat(answers) if len(answers) == len(outcomes) else None,
        seconds=statistics.median(outcome.seconds for outcome in outcomes),
        notes=tuple(dict.fromkeys(note for outcome in outcomes for note in outcome.notes)),
    )


def learning_curve(
    learner: Learner | SequenceLearner,
    task: Task,
    *,
    context: Sequence[int],
    episodes: int,
    seeds: Sequence[int],
    metric: str | None = None,
    progress: Advance | None = None,
) -> CurveSamples:
    """The raw scores of one learner after each number of examples in `context`.

    episodes: prompts, or splits of a table, for each of `seeds`; the same ones for every learner. metric: a name from
    `metrics.METRICS`, by default the task's own. progress: called with the share done and what is being done. Raises
    InputError for a size that the task cannot hold and for a learner or metric that does not fit it.
    """
    source = draw(task, episodes=episodes, seeds=seeds)
    return score(learner, source, context=context, metric=pick_metric(metric, task, source), progress=progress)


def _say_nothing(share: float, note: str) -> None:
    del share, note
