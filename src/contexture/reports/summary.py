"""What a comparison shows, in plain sentences made from its intervals: who leads where, by how much, who ties.

A learner *leads* at a context size if no other has a better score that a paired interval can tell from it. The sizes
are cut into as few runs as possible that each have one learner leading throughout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contexture.evaluation.comparison import Comparison
from contexture.evaluation.metrics import Metric
from contexture.protocols import Measurement
from contexture.reports.numbers import listed, number

_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """A run of context sizes at which one learner leads; `first` if its score is the best at every one of them."""

    leader: str
    sizes: tuple[int, ...]
    first: bool


def leads(comparison: Comparison) -> list[Lead]:
    """The runs, from the smallest context to the largest; sizes at which nobody has a score are left out."""
    known = [(n, names) for n, names in zip(comparison.context, comparison.tied, strict=False) if names]
    found: list[Lead] = []
    while known:
        length, shared = 1, set(known[0][1])
        while length < len(known) and shared & set(known[length][1]):
            shared &= set(known[length][1])
            length += 1
        run, known = known[:length], known[length:]
        leader = min(shared, key=lambda name: (-sum(names[0] == name for _, names in run), _places(name, run), name))
        found.append(
            Lead(
                leader=leader,
                sizes=tuple(n for n, _ in run),
                first=all(names[0] == leader for _, names in run),
            )
        )
    return found


def _places(name: str, run: Sequence[tuple[int, tuple[str, ...]]]) -> int:
    return sum(names.index(name) for _, names in run)


def summary(comparison: Comparison) -> str:
    """One to three sentences: who leads at which sizes, how near to the oracle, and whether anyone beats chance."""
    if not comparison.contestants:
        return "Nothing was measured."
    runs = leads(comparison)
    if not runs:
        return f"No {comparison.entrants[:-1]} has a score at any of these context sizes."
    if len(comparison.contestants) == 1:
        sentences = [_alone(comparison, comparison.contestants[0])]
    elif len(runs) == 1:
        sentences = [_only_leader(comparison, runs[0])]
    else:
        sentences = [_capital("; ".join(_clause(comparison, run, first=run is runs[0]) for run in runs)) + "."]
    sentences += _against_oracle(comparison, runs[-1])
    sentences += _against_chance(comparison, runs[-1])
    return " ".join(sentences)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _score(comparison: Comparison, name: str, size: int) -> tuple[str, str]:
    """The score as text, and its interval (empty where there is none)."""
    measurement = comparison.of(name)
    i = comparison.context.index(size)
    if not math.isfinite(measurement.low[i]):
        return number(measurement.value[i]), ""
    ends = f"{number(measurement.low[i])} to {number(measurement.high[i])}"
    return number(measurement.value[i]), f"{100 * comparison.level:g} % interval {ends}"


def _best(metric: Metric) -> str:
    words = {"lower": "has the lowest", "higher": "has the highest", "level": "is nearest to the right"}
    return f"{words[metric.direction]} {metric.label}"


def _rivals(comparison: Comparison, run: Lead) -> str:
    """Who is level with the leader at the run's last size."""
    tied = comparison.tied[comparison.context.index(run.sizes[-1])]
    return _named([name for name in tied if name != run.leader])


def _only_leader(comparison: Comparison, run: Lead) -> str:
    """The sentence where one learner leads at every size."""
    last = f"after {run.sizes[-1]} {comparison.counted}"
    score, interval = _score(comparison, run.leader, run.sizes[-1])
    ends = f", {interval}" if interval else ""
    span = "At every size" if len(run.sizes) > 1 else _capital(last)
    when = f" {last}" if len(run.sizes) > 1 else ""
    leads = (
        f"{run.leader} {_best(comparison.scoring)}"
        if run.first
        else f"no {comparison.entrants[:-1]} measurably beats {run.leader}"
    )
    rivals = _rivals(comparison, run)
    level = f"; {rivals} cannot be told apart from it{' there' if when else ''}" if rivals else ""
    return f"{span} {leads} ({score}{when}{ends}){level}."


def _clause(comparison: Comparison, run: Lead, *, first: bool) -> str:
    """One leader of several: where, its score at the last of those sizes, and who is level with it there."""
    last = run.sizes[-1]
    if first:
        span = f"up to {last} {comparison.counted}"
    else:
        span = f"from {run.sizes[0]} to {last}" if len(run.sizes) > 1 else f"after {last}"
    leads = (
        f"{run.leader} {_best(comparison.scoring)}"
        if run.first
        else f"no {comparison.entrants[:-1]} measurably beats {run.leader}"
    )
    score, _ = _score(comparison, run.leader, last)
    when = f" after {last}" if len(run.sizes) > 1 else ""
    rivals = _rivals(comparison, run)
    return f"{span} {leads} ({score}{when}{f', level with {rivals}' if rivals else ''})"


def _named(names: Sequence[str]) -> str:
    """The names, cut after a few."""
    more = len(names) - _MOST_NAMED
    return listed([*names[:_MOST_NAMED], f"{more} more"] if more > 0 else names)


def _alone(comparison: Comparison, measurement: Measurement) -> str:
    known = [n for n, v in zip(comparison.context, measurement.value, strict=True) if math.isfinite(v)]
    score, interval = _score(comparison, measurement.name, known[-1])
    what = f"the {comparison.scoring.label} of {measurement.name} is {score}"
    return f"After {known[-1]} {comparison.counted} {what}{f', {interval}' if interval else ''}."


def _against_oracle(comparison: Comparison, run: Lead) -> list[str]:
    if comparison.oracle is None or comparison.oracle == run.leader or not comparison.scoring.lower_is_better:
        return []
    i = comparison.context.index(run.sizes[-1])
    best, oracle = comparison.of(run.leader).value[i], comparison.of(comparison.oracle).value[i]
    if not (math.isfinite(oracle) and oracle > 0):
        return []
    ratio = best / oracle
    near = "about that" if abs(ratio - 1) < 0.02 else f"{number(ratio)} times that"
    oracle_name = comparison.oracle.removesuffix(" (oracle)")
    when = f"After {run.sizes[-1]} {comparison.counted}"
    return [f"{when} its {comparison.scoring.label} is {near} of the oracle, {oracle_name}."]


def _against_chance(comparison: Comparison, run: Lead) -> list[str]:
    chance, metric = comparison.chance, comparison.scoring
    if chance is None or metric.direction == "level":
        return []
    i = comparison.context.index(run.sizes[-1])
    best = comparison.of(run.leader)
    worst_end = best.high[i] if metric.lower_is_better else best.low[i]
    beats = worst_end < chance if metric.lower_is_better else worst_end > chance
    if not math.isfinite(worst_end) or beats:
        return []
    return [f"Even so, its interval does not exclude chance ({number(chance)})."]
