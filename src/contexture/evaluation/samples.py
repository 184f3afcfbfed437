"""Raw scores of one learner, and what is estimated from them.

`CurveSamples` keeps every episode's score at every context size, so that two learners that saw the same episodes can
be compared episode by episode. Synthetic episodes are independent: their intervals come from the two-level bootstrap.
The splits of one table share rows: theirs come from the corrected resampled t. There the two sizes in the correction
are those of the halves, not of the part of the training half that was shown: splits are correlated because their halves
overlap, and showing fewer rows does not make them overlap more.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contexture.errors import InputError
from contexture.evaluation import intervals
from contexture.evaluation.intervals import LEVEL, Interval
from contexture.evaluation.metrics import Metric
from contexture.protocols import Kind, Measurement
from contexture.randomness import generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Halves:
    """How many rows the training half and the held-out half of a table hold."""

    num_train: int
    num_test: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CurveSamples:
    """One learner's scores after each number of examples in `context`, episode by episode.

    losses: the metric's rows, averaged over an episode's queries where it has several; NaN where the learner had no
    answer, and `notes` say why. answers: its predictions for the first queries (means, or class probabilities in a last
    axis), from which distances between learners are taken; None where they are not kept. seconds: wall time of
    `predict` after the largest context, over the number of queries that it answered, the median over calls after a
    first one that is not counted. state_bytes: what has to be kept between predictions at the largest context. halves:
    set for a table alone. per_seed: each seed's episodes were answered by a model of its own training, whose spread is
    then that over the seeds.
    """

    name: str
    kind: Kind
    metric: Metric
    context: tuple[int, ...]
    losses: Float[Tensor, "seeds episodes context"]
    answers: Float[Tensor, "seeds episodes context queries *classes"] | None
    seconds: float
    parameters: int
    state_bytes: int
    halves: Halves | None = None
    notes: tuple[str, ...] = ()
    per_seed: bool = False

    @property
    def num_episodes(self) -> int:
        """Episodes, or splits, behind each value, all seeds together."""
        return self.losses.shape[0] * self.losses.shape[1]


def method(halves: Halves | None) -> str:
    """How intervals are made, in a few words: by splits of one table, or by independent episodes."""
    if halves is not None:
        return "corrected resampled t over splits (Nadeau and Bengio 2003)"
    return "bootstrap over episodes within seeds"


def _interval(losses: Tensor, samples: CurveSamples, level: float, *, per_seed: bool) -> Interval:
    if per_seed and losses.shape[0] > 1:
        return intervals.seed_interval(losses, level=level)
    if samples.halves is None:
        return intervals.bootstrap(losses, generator=generator("bootstrap", samples.metric.name), level=level)
    splits = losses.flatten(0, 1)
    halves = samples.halves
    return intervals.corrected_t(splits, num_train=halves.num_train, num_test=halves.num_test, level=level)


def measure(samples: CurveSamples, *, level: float = LEVEL) -> Measurement:
    """The mean and its interval at every context size, kept inside the metric's bounds.

    A single split has no interval: its ends are NaN.
    """
    found = _interval(samples.losses, samples, level, per_seed=samples.per_seed)
    least, most = samples.metric.bounds
    return Measurement(
        name=samples.name,
        kind=samples.kind,
        context=samples.context,
        value=_numbers(found.value),
        low=_numbers(found.low.clamp(min=least, max=most)),
        high=_numbers(found.high.clamp(min=least, max=most)),
        n=samples.num_episodes,
        seconds=samples.seconds,
        parameters=samples.parameters,
        state_bytes=samples.state_bytes,
    )


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(float(v) if math.isfinite(v) else math.nan for v in values.tolist())


def contrast(first: CurveSamples, second: CurveSamples, *, level: float = LEVEL) -> Interval:
    """The paired difference first - second at every context size; both must have seen the same episodes."""
    if first.context != second.context or first.losses.shape != second.losses.shape or first.halves != second.halves:
        raise InputError(f"{first.name} and {second.name} were not measured on the same episodes")
    per_seed = first.per_seed or second.per_seed
    return _interval(first.losses - second.losses, first, level, per_seed=per_seed)


def tied_with_best(samples: list[CurveSamples], *, level: float = LEVEL) -> tuple[tuple[str, ...], ...]:
    """At each context size, the best learner's name and those that a paired interval cannot tell from it, best first.

    A learner without a value there is left out; a size at which nobody has one gets ().
    """
    if not samples:
        return ()
    badness = torch.stack([s.metric.badness(_finite_mean(s.losses)) for s in samples])
    found: list[tuple[str, ...]] = []
    apart: dict[int, list[Bool[Tensor, " context"]]] = {}
    for size in range(len(samples[0].context)):
        order = [int(i) for i in badness[:, size].argsort(stable=True) if badness[i, size].isfinite()]
        if not order:
            found.append(())
            continue
        best = order[0]
        if best not in apart:
            apart[best] = [contrast(s, samples[best], level=level).excludes_zero for s in samples]
        found.append(tuple(samples[i].name for i in order if i == best or not apart[best][i][size]))
    return tuple(found)


def _finite_mean(losses: Tensor) -> Tensor:
    means = losses.mean((0, 1))
    return torch.where(means.isfinite(), means, torch.nan)
